//! Which refusals are logged. Other users and web pages can be refused as often as they like, and must not be able to fill the log.

use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use std::{num::NonZeroU32, sync::LazyLock};

/// How many refusals are logged in a minute. All are counted in the metrics.
const PER_MINUTE: NonZeroU32 = NonZeroU32::MIN.saturating_add(29);

static LINES: LazyLock<DefaultDirectRateLimiter> = LazyLock::new(|| RateLimiter::direct(Quota::per_minute(PER_MINUTE)));

/// Whether another refusal may be logged now.
pub(super) fn may_log() -> bool {
    LINES.check().is_ok()
}
