//! Work that runs to completion even if its caller goes away.
//!
//! Promise: the work is never cancelled. It runs in its caller; only if the caller is dropped, the rest runs in a task
//! of its own. Starting a task wakes a thread, so work whose caller stays starts none.

use std::{
    pin::Pin,
    task::{Context, Poll},
};
use tokio::runtime::Handle;

/// A future whose work runs to completion even if the future is dropped.
#[derive(Debug)]
pub(super) struct Completion<F>
where
    F: Future<Output: Send> + Send + 'static,
{
    work: Option<Pin<Box<F>>>,
}

impl<F> Completion<F>
where
    F: Future<Output: Send> + Send + 'static,
{
    /// Work that runs to completion, even if it is dropped before it was first polled.
    pub fn of(work: F) -> Self {
        Self { work: Some(Box::pin(work)) }
    }
}

impl<F> Future for Completion<F>
where
    F: Future<Output: Send> + Send + 'static,
{
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        // While it is polled, it is not here: work that panics is not run again.
        let Some(mut work) = self.work.take() else { return Poll::Pending };
        let polled = work.as_mut().poll(context);
        if polled.is_pending() {
            self.work = Some(work);
        }
        polled
    }
}

impl<F> Drop for Completion<F>
where
    F: Future<Output: Send> + Send + 'static,
{
    fn drop(&mut self) {
        // Without a runtime, nothing is left that could finish it.
        if let (Some(work), Ok(runtime)) = (self.work.take(), Handle::try_current()) {
            runtime.spawn(async move { drop(work.await) });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Completion;
    use std::{
        pin::Pin,
        task::{Context, Waker},
    };
    use tokio::sync::{mpsc, oneshot};

    #[tokio::test]
    async fn work_runs_once_whenever_it_is_dropped() {
        for polls in 0..3 {
            let ((go, gate), (done, mut ends)) = (oneshot::channel::<()>(), mpsc::unbounded_channel());
            let mut work = Completion::of(async move {
                drop(gate.await);
                done.send(polls).unwrap();
            });
            if polls > 0 {
                assert!(Pin::new(&mut work).poll(&mut Context::from_waker(Waker::noop())).is_pending());
            }
            drop(go);
            if polls > 1 {
                (&mut work).await;
            }
            drop(work);
            assert_eq!((ends.recv().await, ends.recv().await), (Some(polls), None));
        }
    }
}
