//! Retries with pauses that double.

use std::time::Duration;
use tokio::time::{Instant, sleep};

pub struct Retry {
    /// The first and the longest pause between two attempts.
    pub pause: (Duration, Duration),
    pub patience: Duration,
}

impl Retry {
    /// Repeats `attempt` while `again` asks for it and time remains; returns the last result.
    pub async fn run<T>(&self, mut attempt: impl AsyncFnMut() -> T, mut again: impl FnMut(&T) -> bool) -> T {
        let deadline = Instant::now() + self.patience;
        let (mut pause, longest) = self.pause;
        loop {
            let result = attempt().await;
            if Instant::now() + pause >= deadline || !again(&result) {
                return result;
            }
            sleep(pause).await;
            pause = longest.min(pause * 2);
        }
    }
}
