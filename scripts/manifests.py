"""Checks rendered manifests: schemas of Kubernetes and of custom resources, and a scanner's findings.

Started by manifests.sh: manifests.py RENDERED ACCEPTED SCHEMAS. Says everything that is wrong, then exits with 1.
"""

import fnmatch
import json
import subprocess
import sys
from pathlib import Path

import jsonschema
import kubernetes_validate
import yaml

VERSIONS = 3


def main(rendered, accepted, schemas):
    problems = []
    documents = list(load(rendered))
    inner = [job for document in documents for job in jobs_within(*document)]
    problems += check_schemas(documents + inner, schemas)
    problems += check_findings(scan(rendered, inner), accepted)
    for problem in problems:
        print(f"error: {problem}", file=sys.stderr)
    return 1 if problems else 0


def load(rendered):
    """Every document, with the name of the kustomization that it comes from."""
    for path in sorted(rendered.glob("*.yaml")):
        for document in yaml.safe_load_all(path.read_text()):
            yield path.stem, document


def jobs_within(name, document):
    """The Jobs that a JobSet or a TrainingRuntime makes: what is in them is Kubernetes' own, and checked as such."""
    spec = document["spec"] if document["kind"] == "JobSet" else None
    if document["kind"] == "TrainingRuntime":
        spec = document["spec"]["template"]["spec"]
    for job in spec["replicatedJobs"] if spec else []:
        metadata = {**job["template"].get("metadata", {}), "name": f"{document['metadata']['name']}-{job['name']}"}
        metadata["namespace"] = document["metadata"]["namespace"]
        yield name, {"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": job["template"]["spec"]}


def check_schemas(documents, schemas):
    versions = list(dict.fromkeys(kubernetes_validate.utils.all_versions()))[-VERSIONS:]
    custom = own_schemas(schemas)
    problems, used = [], set()
    for name, document in documents:
        key = (document["apiVersion"], document["kind"])
        if key in custom:
            used.add(key)
            errors = [(error, "") for error in jsonschema.Draft202012Validator(custom[key]).iter_errors(document)]
        else:
            errors = [(error, f" (Kubernetes {version})") for version in versions for error in of_kubernetes(document, version)]
        problems += [f"{place(name, document)}: {where(error)}{error.message}{note}" for error, note in errors]
    problems += [f"{schemas}: no manifest is a {kind} of {version}: remove its schema" for version, kind in custom.keys() - used]
    print(f"schemas: {len(documents)} resources, Kubernetes {', '.join(versions)}, {len(custom)} kinds of custom resources")
    return problems


def own_schemas(directory):
    schemas = {}
    for path in sorted(directory.glob("*.json")):
        schema = json.loads(path.read_text())
        jsonschema.Draft202012Validator.check_schema(schema)
        kind = schema["properties"]["kind"]["const"]
        schemas[schema["properties"]["apiVersion"]["const"], kind] = schema
    return schemas


def of_kubernetes(document, version):
    """What is wrong with a resource of Kubernetes' own. A kind that is not known is wrong: it needs a schema."""
    try:
        kubernetes_validate.validate(document, version, strict=True)
    except kubernetes_validate.ValidationError as error:
        yield error
    except kubernetes_validate.SchemaNotFoundError as error:
        yield jsonschema.ValidationError(f"{error.message}; if it is a custom resource, write one into tests/schemas")


def scan(rendered, inner):
    """What the scanner finds: (check, what it says, kustomization:Kind/name)."""
    extracted = rendered / "extracted"
    extracted.mkdir(exist_ok=True)
    for number, (name, job) in enumerate(inner):
        (extracted / f"{name}.{number}.yaml").write_text(yaml.safe_dump(job))
    command = [Path(sys.executable).with_name("checkov"), "--skip-download", "--framework", "kubernetes"]
    command += ["--directory", rendered, "--output", "json", "--compact"]
    done = subprocess.run(command, capture_output=True, text=True)
    try:
        report = json.loads(done.stdout)
        summary, results = report["summary"], report["results"]
    except (json.JSONDecodeError, KeyError, TypeError):
        sys.exit(f"error: checkov failed with {done.returncode}: {done.stdout[-500:]} {done.stderr[-500:]}")
    if summary["parsing_errors"] or not summary["passed"]:
        sys.exit(f"error: checkov could not read the manifests: {summary}")
    print(f"checkov: {summary['passed']} checks passed, {summary['failed']} findings")
    for finding in results["failed_checks"]:
        kind, _, resource = finding["resource"].split(".", 2)
        name = Path(finding["file_path"]).name.split(".")[0]
        yield finding["check_id"], finding["check_name"], f"{name}:{kind}/{resource}"


def check_findings(findings, accepted):
    """Every finding has an explanation, and every explanation a finding."""
    explained = [line.split(None, 2) for line in accepted.read_text().splitlines() if line and not line.startswith("#")]
    unused = {(check, pattern) for check, pattern, _reason in explained}
    for check, name, place in findings:
        by = [(c, pattern) for c, pattern, _reason in explained if c == check and fnmatch.fnmatch(place, pattern)]
        unused.difference_update(by)
        if not by:
            yield f"{place}: {check} {name} (mend it, or explain it in {accepted})"
    for check, pattern in sorted(unused):
        yield f"{accepted}: nothing is found that {check} {pattern} explains: remove it"


def place(name, document):
    return f"{name}: {document['kind']} {document['metadata']['name']}"


def where(error):
    return "".join(f"{part}." for part in error.path).rstrip(".") + ": " if error.path else ""


if __name__ == "__main__":
    sys.exit(main(*(Path(argument) for argument in sys.argv[1:])))
