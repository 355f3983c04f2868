//! Charts as SVG: geometry here, colours in the style sheet. A missing sample is a gap, never a zero or a bridge.

use std::fmt::Write as _;

use askama::Template;
use time::OffsetDateTime;

use super::when;
use crate::ops::grouped;

const WIDTH: f64 = 332.0;
const FLOOR: f64 = 104.0;
/// How wide a sample without neighbours is drawn.
const LONE: f64 = 3.0;
/// How wide the picture of one series is.
const WIDE: f64 = 88.0;
/// Room above the highest point, so that its label does not touch the heading.
const HEAD: f64 = 14.0;

/// One class of thing in a chart.
#[derive(Debug, Clone)]
pub(crate) struct Series {
    /// Its name in the key.
    pub(crate) label: String,
    /// Its colour's class: `teal`, `blue`, `amber`, `red`, `grey`.
    pub(crate) colour: &'static str,
    /// One value per step; `None` where nothing was reported.
    pub(crate) values: Vec<Option<f64>>,
}

/// How the series are drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Style {
    /// On top of each other, filled.
    Stacked,
    /// Each for itself.
    Lines,
}

/// The time axis.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Axis {
    /// The first step's time.
    pub(crate) from: OffsetDateTime,
    /// One step, seconds.
    pub(crate) step: i64,
}

/// A drawn chart.
#[derive(Debug, Template)]
#[template(path = "parts/chart.html")]
pub(crate) struct Chart {
    summary: String,
    width: f64,
    height: f64,
    floor: f64,
    label_y: f64,
    grid: Vec<GridLine>,
    gaps: Vec<Span>,
    layers: Vec<Layer>,
    times: Vec<TimeLabel>,
    hits: Vec<Span>,
    keys: Vec<Key>,
}

#[derive(Debug)]
struct GridLine {
    y: String,
    text_y: String,
    label: String,
}

#[derive(Debug)]
struct Span {
    x: String,
    width: String,
    title: String,
}

#[derive(Debug)]
struct Layer {
    class: String,
    path: String,
}

#[derive(Debug)]
struct TimeLabel {
    x: String,
    anchor: &'static str,
    text: String,
}

#[derive(Debug)]
struct Key {
    colour: &'static str,
    label: String,
}

/// A number with at most one decimal and thousands apart, as labels show it.
pub(crate) fn figure(value: f64) -> String {
    if value != 0.0 && value.abs() < 10.0 {
        // Two digits that count, so that the half of a small figure is not written like the whole.
        let decimals = match value.abs() {
            small if small < 0.1 => 3,
            small if small < 1.0 => 2,
            _ => 1,
        };
        let text = format!("{value:.decimals$}");
        return text.trim_end_matches('0').trim_end_matches('.').to_owned();
    }
    let digits = format!("{value:.0}");
    match digits.strip_prefix('-') {
        Some(digits) => format!("-{}", grouped(digits)),
        None => grouped(&digits),
    }
}

/// The next round number (1, 2, 5 times a power of ten) not below `value`.
fn round_up(value: f64) -> f64 {
    if value <= 0.0 {
        return 1.0;
    }
    let power = 10f64.powf(value.log10().floor());
    [1.0, 2.0, 5.0, 10.0]
        .into_iter()
        .map(|m| m * power)
        .find(|round| *round >= value * 0.999)
        .unwrap_or(value)
}

impl Chart {
    /// Draws `series` over `axis`; `what` names the chart for those who cannot see it, `unit` stands on every figure.
    pub(crate) fn new(what: &str, unit: &str, style: Style, axis: Axis, series: &[Series]) -> Self {
        let steps = series.iter().map(|s| s.values.len()).max().unwrap_or(0);
        let tops = tops(style, series, steps);
        let peak = tops.iter().flatten().flatten().copied().fold(0.0, f64::max);
        let scale = Scale { top: round_up(peak), steps };
        let layers = match style {
            Style::Stacked => stacked(&scale, series, &tops),
            Style::Lines => lines(&scale, series),
        };
        Self {
            summary: summary(what, unit, series),
            width: WIDTH,
            height: FLOOR + 18.0,
            floor: FLOOR,
            label_y: FLOOR + 16.0,
            grid: [1.0, 0.5].into_iter().map(|part| grid_line(&scale, part, unit)).collect(),
            gaps: (0..steps)
                .filter(|step| missing(series, *step))
                .map(|step| scale.span(step, "no report".to_owned()))
                .collect(),
            layers,
            times: times(&scale, axis),
            hits: (0..steps).map(|step| scale.span(step, title(axis, unit, series, step))).collect(),
            keys: series.iter().map(|s| Key { colour: s.colour, label: s.label.clone() }).collect(),
        }
    }
}

struct Scale {
    top: f64,
    steps: usize,
}

impl Scale {
    fn x(&self, step: usize) -> f64 {
        if self.steps < 2 { WIDTH / 2.0 } else { step as f64 * WIDTH / (self.steps - 1) as f64 }
    }

    fn y(&self, value: f64) -> f64 {
        FLOOR - (FLOOR - HEAD) * (value / self.top)
    }

    fn span(&self, step: usize, title: String) -> Span {
        let half = WIDTH / self.steps.max(2).saturating_sub(1) as f64 / 2.0;
        let (from, to) = ((self.x(step) - half).max(0.0), (self.x(step) + half).min(WIDTH));
        Span { x: short(from), width: short(to - from), title }
    }
}

/// One decimal is a tenth of a pixel.
fn short(value: f64) -> String {
    let text = format!("{value:.1}");
    text.strip_suffix(".0").map_or(text.clone(), str::to_owned)
}

fn at(series: &Series, step: usize) -> Option<f64> {
    series.values.get(step).copied().flatten()
}

fn missing(series: &[Series], step: usize) -> bool {
    series.iter().all(|s| at(s, step).is_none())
}

/// For each series and step the upper edge of its area or its line.
fn tops(style: Style, series: &[Series], steps: usize) -> Vec<Vec<Option<f64>>> {
    let mut below = vec![0.0; steps];
    let mut tops = Vec::with_capacity(series.len());
    for one in series {
        let edge = (0..steps).map(|step| {
            let value = at(one, step);
            match style {
                Style::Lines => value,
                Style::Stacked if missing(series, step) => None,
                Style::Stacked => below.get_mut(step).map(|sum| {
                    *sum += value.unwrap_or(0.0);
                    *sum
                }),
            }
        });
        tops.push(edge.collect());
    }
    tops
}

/// Runs of steps that have a value, as half-open ranges.
fn runs(edge: &[Option<f64>]) -> Vec<std::ops::Range<usize>> {
    let mut runs: Vec<std::ops::Range<usize>> = Vec::new();
    for step in (0..edge.len()).filter(|step| edge.get(*step).is_some_and(Option::is_some)) {
        match runs.last_mut() {
            Some(run) if run.end == step => run.end += 1,
            _ => runs.push(step..step + 1),
        }
    }
    runs
}

fn stacked(scale: &Scale, series: &[Series], tops: &[Vec<Option<f64>>]) -> Vec<Layer> {
    let ground = vec![Some(0.0); scale.steps];
    let mut below = &ground;
    let mut layers = Vec::with_capacity(series.len());
    for (one, edge) in series.iter().zip(tops) {
        let mut path = String::new();
        for run in runs(edge) {
            polyline(scale, &mut path, 'M', run.clone(), edge);
            polyline(scale, &mut path, 'L', run.rev(), below);
            path.push('Z');
        }
        layers.push(Layer { class: format!("area {}", one.colour), path });
        below = edge;
    }
    layers
}

fn lines(scale: &Scale, series: &[Series]) -> Vec<Layer> {
    let line = |one: &Series| {
        let mut path = String::new();
        for run in runs(&one.values) {
            polyline(scale, &mut path, 'M', run, &one.values);
        }
        Layer { class: format!("line {}", one.colour), path }
    };
    series.iter().map(line).collect()
}

fn polyline(
    scale: &Scale,
    path: &mut String,
    first: char,
    steps: impl Iterator<Item = usize>,
    edge: &[Option<f64>],
) {
    let mut pen = first;
    let mut steps = steps.enumerate().peekable();
    while let Some((at, step)) = steps.next() {
        let value = edge.get(step).copied().flatten().unwrap_or(0.0);
        let (x, y) = (scale.x(step), short(scale.y(value)));
        let _ = match (at == 0 && steps.peek().is_none(), first) {
            (false, _) => write!(path, "{pen}{} {y}", short(x)),
            // A lone sample between two gaps is still a sample: it gets a length that can be seen.
            (true, 'M') => write!(path, "M{} {y}h{}", short(x - LONE / 2.0), short(LONE)),
            (true, _) => write!(path, "{pen}{} {y}h-{}", short(x + LONE / 2.0), short(LONE)),
        };
        pen = 'L';
    }
}

fn grid_line(scale: &Scale, part: f64, unit: &str) -> GridLine {
    let y = scale.y(scale.top * part);
    GridLine { y: short(y), text_y: short(y - 3.0), label: format!("{} {unit}", figure(scale.top * part)) }
}

fn times(scale: &Scale, axis: Axis) -> Vec<TimeLabel> {
    let Some(last) = scale.steps.checked_sub(1).filter(|last| *last >= 4) else { return Vec::new() };
    let label = |quarter: usize| {
        let step = last * quarter / 4;
        let at = axis.from + time::Duration::seconds(axis.step * step as i64);
        let (anchor, text) = match quarter {
            0 => ("start", when::clock(at)),
            4 => ("end", "now".to_owned()),
            _ => ("middle", when::clock(at)),
        };
        TimeLabel { x: short(scale.x(step)), anchor, text }
    };
    (0..=4).map(label).collect()
}

fn title(axis: Axis, unit: &str, series: &[Series], step: usize) -> String {
    let mut text =
        format!("{} UTC", when::clock(axis.from + time::Duration::seconds(axis.step * step as i64)));
    if missing(series, step) {
        text.push_str("\nno report");
    }
    for one in series {
        if let Some(value) = at(one, step) {
            let _ = write!(text, "\n{}: {} {unit}", one.label, figure(value));
        }
    }
    text
}

fn summary(what: &str, unit: &str, series: &[Series]) -> String {
    let mut text = format!("{what}.");
    for one in series {
        match one.values.iter().rev().flatten().next() {
            Some(value) => {
                let _ = write!(text, " {}: {} {unit} now.", one.label, figure(*value));
            }
            None => {
                let _ = write!(text, " {}: nothing reported.", one.label);
            }
        }
    }
    text
}

/// A line small enough for a table's cell.
#[derive(Debug, Template)]
#[template(
    source = r#"<svg class="spark" viewBox="0 0 88 20" role="img" aria-label="{{ label }}"><path class="line {{ colour }}" d="{{ path }}"/></svg>"#,
    ext = "svg",
    escape = "html"
)]
pub(crate) struct Spark {
    label: String,
    colour: &'static str,
    path: String,
}

impl Spark {
    /// Draws one series; its own peak is its height.
    pub(crate) fn new(label: String, colour: &'static str, values: &[Option<f64>]) -> Self {
        let peak = values.iter().flatten().copied().fold(0.0, f64::max);
        let step = WIDE / values.len().max(2).saturating_sub(1) as f64;
        let mut path = String::new();
        for run in runs(values) {
            let mut pen = 'M';
            for index in run.clone() {
                let value = values.get(index).copied().flatten().unwrap_or(0.0);
                let share = if peak > 0.0 { value / peak } else { 0.0 };
                // The newest alone would begin where the picture ends.
                let most = if run.len() == 1 { WIDE - LONE } else { WIDE };
                let x = (index as f64 * step).min(most);
                let _ = write!(path, "{pen}{} {}", short(x), short(18.0 - share * 16.0));
                pen = 'L';
            }
            if run.len() == 1 {
                let _ = write!(path, "h{}", short(LONE));
            }
        }
        Self { label, colour, path }
    }
}

#[cfg(test)]
mod tests;
