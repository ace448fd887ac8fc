//! `cargo run -p chasquimq-fuzz -- --minutes 5 TARGET…`: a long run; without a target, of each.
//!
//! Not in release mode: there numbers that overflow are no finding.
#![expect(clippy::print_stdout, reason = "it is a program for the terminal")]

use std::time::Duration;

use anyhow::{Context, bail};
use chasquimq::fuzzing::{TARGETS, Target};
use chasquimq_fuzz::{Corpus, Run};
use clap::Parser;

/// Feeds mutated bytes to what of the engine reads bytes from outside.
#[derive(Parser)]
struct Args {
    /// What to fuzz; without any, all.
    targets: Vec<String>,
    /// How long, each.
    #[arg(long, default_value_t = 5.0)]
    minutes: f64,
    /// Where the random choices begin; the same seed makes the same ones.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let known = |name: &String| {
        TARGETS.iter().find(|target| target.name == name).with_context(|| {
            let names: Vec<_> = TARGETS.iter().map(|target| target.name).collect();
            format!("{name:?} is no target; these are: {}", names.join(", "))
        })
    };
    let chosen: Vec<&Target> = match &args.targets[..] {
        [] => TARGETS.iter().collect(),
        names => names.iter().map(known).collect::<anyhow::Result<_>>()?,
    };
    let mut findings = 0;
    for target in chosen {
        let mut run = Run::new(target, Corpus::of(target.name)?, args.seed);
        let found = run.until(Duration::from_secs_f64(args.minutes * 60.0));
        println!("{}: {run}", target.name);
        if let Err(finding) = found {
            println!("{}: FOUND with --seed {}: {finding}", target.name, args.seed);
            findings += 1;
        }
    }
    if findings == 0 {
        Ok(())
    } else {
        bail!("{findings} findings: keep their bytes in the corpus")
    }
}
