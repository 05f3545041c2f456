//! Progress notifications of a call that waits, for clients that give a silent call up.

use super::{log, stdio::Writer};
use rmcp::model::ProgressToken;
use serde_json::json;
use std::time::Duration;
use tokio::{sync::oneshot, task::JoinHandle, time::timeout};

/// The pause between two of them: well below the time after which clients give up.
const PAUSE: Duration = Duration::from_secs(10);

pub struct Progress {
    end: oneshot::Sender<()>,
    reports: JoinHandle<()>,
}

impl Progress {
    /// Reports progress to `out` under `token` until it ends.
    pub fn of(token: ProgressToken, out: Writer) -> Self {
        let (end, ended) = oneshot::channel();
        Self { end, reports: tokio::spawn(report(token, out, ended)) }
    }

    /// Returns once no report will be written any more.
    pub async fn end(self) {
        drop(self.end);
        _ = self.reports.await; // it cannot have failed
    }
}

/// Reports the seconds that have passed. A line is never cut off half-way.
async fn report(token: ProgressToken, out: Writer, mut ended: oneshot::Receiver<()>) {
    let mut waited = Duration::ZERO;
    while timeout(PAUSE, &mut ended).await.is_err() {
        waited += PAUSE;
        let params = json!({"progressToken": token, "progress": waited.as_secs()});
        let line = json!({"jsonrpc": "2.0", "method": "notifications/progress", "params": params});
        if let Err(error) = out.write_line(format!("{line}\n").as_bytes()).await {
            return log!("reporting progress: {error}");
        }
    }
}
