//! Tells the demo's story as it happens: scenes and steps for people, one line of JSON a step for programs.

use crate::{
    console::{
        exit::Failure,
        out::{Out, Tone},
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
    out: Out,
    began: Instant,
}

impl Teller {
    pub fn new(out: Out) -> Self {
        Self { out, began: Instant::now() }
    }

    pub fn opening(&self, title: &str, about: &str) -> Result<(), Failure> {
        self.out.human(|look| format!("{}\n{}\n", look.paint(Tone::Strong, title), look.paint(Tone::Dim, about)))
    }

    pub fn scene(&self, title: &str) -> Result<(), Failure> {
        self.out.human(|look| format!("\n{}\n", look.paint(Tone::Strong, title)))
    }

    pub fn says(&self, who: &str, text: &str) -> Result<(), Failure> {
        self.out.human(|look| format!("               {} “{}”\n", look.paint(Tone::Dim, format!("{who}:")), printable_line(text)))
    }

    pub fn step(&self, step: &str, took: Duration, text: &str) -> Result<(), Failure> {
        let ms = (took.as_secs_f64() * 10_000.0).round() / 10.0;
        if self.out.json {
            return self.out.json(&Step { step, ms, text });
        }
        self.out.human(|look| {
            let time = look.paint(Tone::Dim, format!("{ms:>7.1} ms"));
            format!("  {} {time}  {}\n", look.paint(Tone::Good, "✓"), printable_line(text))
        })
    }

    pub fn warning(&self, text: &str) -> Result<(), Failure> {
        self.out.human(|look| format!("               {} {}\n", look.paint(Tone::Warn, "warned:"), printable_line(text)))
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
