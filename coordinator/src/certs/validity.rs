//! The validity period of a certificate.

use millefeuille_proto::tls::date;
use time::{Duration, OffsetDateTime};

/// New certificates are valid from this long ago: clocks differ.
const SKEW: Duration = Duration::minutes(5);

/// The validity period of a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// The start of the period.
    pub not_before: OffsetDateTime,
    /// The end of the period.
    pub not_after: OffsetDateTime,
}

impl Validity {
    /// `days` days from now, and the last few minutes, for clocks that are late.
    pub fn days(now: OffsetDateTime, days: u32) -> Self {
        let now = whole_seconds(now);
        Self {
            not_before: now.saturating_sub(SKEW),
            not_after: now.saturating_add(Duration::days(days.into())),
        }
    }

    /// The same period, cut off at the end of another.
    #[must_use]
    pub fn within(self, other: Self) -> Self {
        Self { not_after: self.not_after.min(other.not_after), ..self }
    }

    /// Whether it has not begun.
    pub fn is_to_come(self, now: OffsetDateTime) -> bool {
        now < self.not_before
    }

    /// Whether it is over.
    pub fn is_over(self, now: OffsetDateTime) -> bool {
        now > self.not_after
    }

    /// Whether less than a third of it is left: time to renew.
    pub fn is_nearly_over(self, now: OffsetDateTime) -> bool {
        (self.not_after - now).saturating_mul(3) < self.not_after - self.not_before
    }

    /// Number of whole days left.
    pub fn days_left(self, now: OffsetDateTime) -> i64 {
        (self.not_after - now).whole_days()
    }
}

/// Truncates a time to seconds: certificates have no fractions.
pub fn whole_seconds(moment: OffsetDateTime) -> OffsetDateTime {
    moment.replace_nanosecond(0).unwrap_or(moment)
}

/// Formats a time for people and programs, as in the log.
pub fn shown(moment: OffsetDateTime) -> String {
    date(moment.unix_timestamp())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(days: i64) -> OffsetDateTime {
        OffsetDateTime::UNIX_EPOCH + Duration::days(days)
    }

    #[test]
    fn it_begins_a_little_earlier_and_ends_on_the_day() {
        let validity = Validity::days(after(0), 90);

        assert!(!validity.is_to_come(after(0) - Duration::minutes(4)));
        assert!(validity.is_to_come(after(0) - Duration::minutes(6)));
        assert_eq!((validity.days_left(after(0)), validity.days_left(after(89))), (90, 1));
        assert!(!validity.is_over(after(90)) && validity.is_over(after(90) + Duration::seconds(1)));
    }

    #[test]
    fn it_is_time_to_renew_in_the_last_third() {
        let validity = Validity::days(after(0), 90);

        assert!(!validity.is_nearly_over(after(59)));
        assert!(validity.is_nearly_over(after(61)));
        assert!(validity.is_nearly_over(after(1000)));
    }

    #[test]
    fn it_ends_with_another() {
        let (short, long) = (Validity::days(after(0), 10), Validity::days(after(0), 90));

        assert_eq!(long.within(short), short);
        assert_eq!(short.within(long), short);
    }

    #[test]
    fn moments_are_shown_as_programs_read_them() {
        assert_eq!(shown(after(365)), "1971-01-01T00:00:00Z");
    }
}
