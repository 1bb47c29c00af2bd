//! What something costs an engine, and how two engines compare.

use std::time::Instant;

use anyhow::Result;

use crate::peers::Engine;

/// What one thing took.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cost {
    /// Time that passed, in milliseconds.
    pub(crate) wall: f64,
    /// Processor time of the engine with its helpers, containers not included, in milliseconds. It tells more than the
    /// wall on a machine that has other things to do.
    pub(crate) processor: f64,
}

impl Cost {
    /// Does something and sees what it takes.
    pub(crate) fn of<T>(
        engine: &Engine<'_>,
        work: impl FnOnce() -> Result<T>,
    ) -> Result<(Self, T)> {
        let (before, begin) = (engine.daemon.processor()?, Instant::now());
        let done = work()?;
        let wall = milliseconds(begin);
        let processor = engine.daemon.processor()? - before;
        Ok((Self { wall, processor }, done))
    }

    /// The median of each, for things that take about the same again and again.
    pub(crate) fn median(costs: &[Self]) -> Self {
        let middle =
            |of: fn(&Self) -> f64| quantile(&mut costs.iter().map(of).collect::<Vec<_>>(), 0.5);
        Self {
            wall: middle(|cost| cost.wall),
            processor: middle(|cost| cost.processor),
        }
    }

    /// The least of each, for things that the disk makes slower now and then.
    pub(crate) fn least(costs: &[Self]) -> Self {
        let least = |of: fn(&Self) -> f64| costs.iter().map(of).fold(f64::INFINITY, f64::min);
        Self {
            wall: least(|cost| cost.wall),
            processor: least(|cost| cost.processor),
        }
    }

    /// One of `count` equal parts.
    pub(crate) fn each(self, count: usize) -> Self {
        Self {
            wall: self.wall / count as f64,
            processor: self.processor / count as f64,
        }
    }
}

/// Milliseconds since a moment.
pub(crate) fn milliseconds(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1e3
}

/// The value that this part of the others is below.
pub(crate) fn quantile(values: &mut [f64], of: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let last = values.len().saturating_sub(1);
    let at = (last as f64 * of).round() as usize;
    values.get(at).copied().unwrap_or(0.0)
}

/// A line of a comparison.
pub(crate) type Line = (String, Cost);

/// Prints what things cost, and how the first compares to the last.
pub(crate) fn print(title: &str, lines: &[Line]) {
    println!(
        "\n{title}\n  {:<28} {:>10} {:>13}",
        "", "wall ms", "processor ms"
    );
    for (name, cost) in lines {
        println!("  {name:<28} {:>10.2} {:>13.2}", cost.wall, cost.processor);
    }
}

/// Prints the ratio of two lines by what counts of them, and whether it is at most the goal.
pub(crate) fn goal(lines: &[Line], name: &str, peer: &str, what: fn(&Cost) -> f64, at_most: f64) {
    let find = |name: &str| lines.iter().find(|(n, _)| n == name).map(|(_, cost)| cost);
    let (Some(cost), Some(other)) = (find(name), find(peer)) else {
        return;
    };
    ratio(name, peer, what(cost) / what(other), at_most);
}

/// Prints the ratio of two things, and whether it is at most the goal.
pub(crate) fn ratio(name: &str, peer: &str, ratio: f64, at_most: f64) {
    let verdict = verdict(ratio <= at_most);
    println!("  {name} / {peer} = {ratio:.3}, goal {at_most:.3}: {verdict}");
}

/// How a goal came out.
pub(crate) fn verdict(met: bool) -> &'static str {
    if met { "met" } else { "MISSED" }
}

/// As [`print`] and [`goal`] for gantryd beside dockerd, by the wall.
pub(crate) fn report(title: &str, lines: &[Line], at_most: f64) {
    print(title, lines);
    goal(lines, "gantryd", "dockerd", |cost| cost.wall, at_most);
}
