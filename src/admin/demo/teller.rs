//! Tells the story: scenes and steps for people, a line of JSON per step for programs.

use crate::{
    console::{
        exit::Failure,
        out::{Out, Tone},
        report::{Columns, Row},
    },
    wire::text::printable_line,
};
use serde::Serialize;
use std::time::{Duration, Instant};

#[derive(Serialize)]
struct Step<'a> {
    step: &'a str,
    ms: f64,
    text: &'a str,
}

pub struct Teller {
    pub out: Out,
    pub began: Instant,
}

impl Teller {
    pub fn scene(&self, title: &str) -> Result<(), Failure> {
        self.out.human(|look| format!("\n{}\n", look.paint(Tone::Strong, title)))
    }

    pub fn says(&self, who: &str, text: &str) -> Result<(), Failure> {
        self.out.human(|look| format!("{:15}{} “{}”\n", "", look.paint(Tone::Dim, format!("{who}:")), printable_line(text)))
    }

    /// Tells of something once it is done.
    pub async fn timed<T>(
        &self,
        step: &str,
        doing: impl Future<Output = Result<T, Failure>>,
        text: impl FnOnce(&T) -> String,
    ) -> Result<T, Failure> {
        let began = Instant::now();
        let done = doing.await?;
        self.step(step, began.elapsed(), &text(&done))?;
        Ok(done)
    }

    pub fn step(&self, step: &str, took: Duration, text: &str) -> Result<(), Failure> {
        let ms = (took.as_secs_f64() * 10_000.0).round() / 10.0;
        if self.out.json {
            return self.out.json(&Step { step, ms, text });
        }
        let time = format!("{ms:>7.1} ms");
        self.out.human(|look| Row { mark: (Tone::Good, "  ✓"), name: &time, text, help: None }.render(Columns(3, 10), look))
    }

    pub fn ending(&self, text: &str, next: &str) -> Result<(), Failure> {
        let took = self.began.elapsed();
        if self.out.json {
            return self.step("done", took, text);
        }
        let what = format!("{text} It took {:.1} s.", took.as_secs_f64());
        self.out.human(|look| format!("\n{}\n{next}\n", look.paint(Tone::Good, &what)))
    }
}
