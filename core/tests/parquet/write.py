"""Writes the files beside it by pyarrow, as pandas would, and the same table as CSV.

    pip install pandas==3.1.1 pyarrow==26.0.1 && python write.py

All files hold one table: numbers of every type, with the edges of f32 and nulls, texts and booleans.
"""

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

ROWS = 40
row = np.arange(ROWS)
table = pd.DataFrame(
    {
        "int8": (row - 20).astype("int8"),
        "uint32": (row * 110_127_366).astype("uint32"),
        "int64": row * 2_305_843_009_213_693 - 7,
        "float32": np.float32(0.1) * row.astype("float32"),
        # Every fifth is halfway between two floats of 32 bits.
        "float64": np.where(row % 5 == 0, 1 + (2 * row + 1) * 2.0**-24, row / 3),
        "with nulls": pd.array([None if i % 7 == 3 else i / 7 for i in row], dtype="Float64"),
        "colour": [["red", "green, blue", 'a "quote"'][i % 3] for i in row],
        "is new": row % 4 == 1,
        "kind": [["rose", "lily"][i * i % 5 % 2] for i in row],
    }
)
table.to_csv("table.csv", index=False)
arrow = pa.Table.from_pandas(table, preserve_index=False)
pq.write_table(arrow, "snappy.parquet")
pq.write_table(arrow, "gzip.parquet", compression="gzip", row_group_size=16)
pq.write_table(arrow, "zstd-v2.parquet", compression="zstd", data_page_version="2.0", row_group_size=17)
pq.write_table(arrow, "plain.parquet", compression="none", use_dictionary=False)
pq.write_table(arrow, "split.parquet", column_encoding={"float64": "BYTE_STREAM_SPLIT", "int64": "DELTA_BINARY_PACKED"},
               use_dictionary=["colour"], compression="zstd")
pq.write_table(arrow, "brotli.parquet", compression="brotli")
pq.write_table(pa.table({"x": [[1, 2], [3]], "kind": ["a", "b"]}), "nested.parquet")
pq.write_table(pa.table({"x": pa.array([1, 2], pa.timestamp("us")), "kind": ["a", "b"]}), "times.parquet")
