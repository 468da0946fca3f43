//! Line charts as SVG, drawn by hand: two panels, two lines each.

use std::fmt::Write;

use super::point::{MEMORY, PROCESSES, PROCESSES_MIB, Summary};

const PANEL_WIDTH: f64 = 420.0;
const PANEL_HEIGHT: f64 = 320.0;
/// Around the drawing area of a panel.
const LEFT: f64 = 60.0;
const RIGHT: f64 = 20.0;
const TOP: f64 = 40.0;
const BOTTOM: f64 = 55.0;
/// Gaps between horizontal lines, at most.
const STEPS: f64 = 6.0;

/// Modes in the order in which they are drawn, with what they are called and their colour.
const SERIES: [(&str, &str, &str); 2] =
    [("baseline", "criu + tar over TLS + criu", "#c05020"), ("cold", "UMS, cold", "#2060b0")];

/// Total time over memory, and over the number of processes.
pub(super) fn cold(summaries: &[Summary]) -> String {
    let width = PANEL_WIDTH * 2.0;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{PANEL_HEIGHT}\" \
         viewBox=\"0 0 {width} {PANEL_HEIGHT}\" font-family=\"sans-serif\" font-size=\"11\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
    );
    let processes = format!("processes ({PROCESSES_MIB} MiB in all)");
    svg += &panel(summaries, MEMORY, "memory in MiB (1 process)", 0.0, |summary| summary.memory_mib);
    svg += &panel(summaries, PROCESSES, &processes, PANEL_WIDTH, |summary| u64::from(summary.processes));
    svg + "</svg>\n"
}

/// One panel. Places on the horizontal axis are equally far apart, because the sizes double and one of them is 0.
fn panel(
    summaries: &[Summary],
    scenario: &str,
    axis: &str,
    shift: f64,
    place: impl Fn(&Summary) -> u64,
) -> String {
    let points: Vec<(&str, u64, f64)> = summaries
        .iter()
        .filter(|summary| summary.scenario == scenario)
        .filter_map(|summary| Some((summary.mode, place(summary), summary.total_ms? / 1000.0)))
        .collect();
    let mut places: Vec<u64> = points.iter().map(|point| point.1).collect();
    places.sort_unstable();
    places.dedup();
    let step = step(points.iter().map(|point| point.2).fold(0.0, f64::max));
    let lines = (points.iter().map(|point| point.2).fold(0.0, f64::max) / step).ceil().max(1.0);
    let (right, bottom) = (PANEL_WIDTH - RIGHT, PANEL_HEIGHT - BOTTOM);
    let x = |index: usize| LEFT + (right - LEFT) * (index as f64 + 0.5) / places.len().max(1) as f64;
    let y = |seconds: f64| bottom - (bottom - TOP) * seconds / (step * lines);

    let mut svg = format!("<g transform=\"translate({shift} 0)\">\n");
    let mut line = 0.0;
    while line <= lines {
        let (height, value) = (y(line * step), line * step);
        put(
            &mut svg,
            format_args!(
                "<line x1=\"{LEFT}\" y1=\"{height:.1}\" x2=\"{right}\" y2=\"{height:.1}\" stroke=\"#ddd\"/>\n\
             <text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>\n",
                LEFT - 6.0,
                height + 4.0,
                trimmed(value)
            ),
        );
        line += 1.0;
    }
    for (index, place) in places.iter().enumerate() {
        put(
            &mut svg,
            format_args!(
                "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{place}</text>\n",
                x(index),
                bottom + 16.0
            ),
        );
    }
    put(
        &mut svg,
        format_args!(
            "<path d=\"M{LEFT} {TOP}V{bottom}H{right}\" fill=\"none\" stroke=\"black\"/>\n\
         <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{axis}</text>\n\
         <text transform=\"translate(16 {:.1}) rotate(-90)\" text-anchor=\"middle\">total migration time in s</text>\n",
            f64::midpoint(LEFT, right),
            bottom + 38.0,
            f64::midpoint(TOP, bottom)
        ),
    );
    for (number, (mode, name, colour)) in SERIES.iter().enumerate() {
        let own = points.iter().filter(|point| point.0 == *mode);
        let own: Vec<(f64, f64)> =
            own.filter_map(|point| Some((x(places.binary_search(&point.1).ok()?), y(point.2)))).collect();
        if own.is_empty() {
            continue;
        }
        let path: Vec<String> = own.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
        put(
            &mut svg,
            format_args!(
                "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>\n",
                path.join(" ")
            ),
        );
        for (x, y) in &own {
            put(&mut svg, format_args!("<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\" fill=\"{colour}\"/>\n"));
        }
        let height = TOP - 24.0 + 14.0 * number as f64;
        put(
            &mut svg,
            format_args!(
                "<rect x=\"{}\" y=\"{height}\" width=\"14\" height=\"4\" fill=\"{colour}\"/>\n\
             <text x=\"{}\" y=\"{}\">{name}</text>\n",
                LEFT + 12.0,
                LEFT + 32.0,
                height + 6.0
            ),
        );
    }
    svg + "</g>\n"
}

/// 1, 2 or 5 times a power of ten, so that at most [`STEPS`] of it reach `most`.
fn step(most: f64) -> f64 {
    let rough = (most / STEPS).max(0.001);
    let power = 10_f64.powf(rough.log10().floor());
    let factor = [1.0, 2.0, 5.0, 10.0].into_iter().find(|factor| factor * power >= rough * 0.999);
    factor.unwrap_or(10.0) * power
}

fn trimmed(value: f64) -> String {
    let text = format!("{value:.3}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn put(svg: &mut String, text: std::fmt::Arguments<'_>) {
    svg.write_fmt(text).expect("writing to a string does not fail");
}

#[cfg(test)]
mod tests {
    use super::super::point::points;
    use super::*;

    fn summary(mode: &'static str, memory_mib: u64, total_ms: f64) -> Summary {
        let mut summary = Summary::of(&points(true)[0], mode, &[]);
        (summary.memory_mib, summary.total_ms) = (memory_mib, Some(total_ms));
        summary
    }

    #[test]
    fn every_point_is_on_the_picture_and_more_time_is_higher() {
        let summaries =
            [summary("cold", 0, 300.0), summary("cold", 64, 900.0), summary("baseline", 64, 1200.0)];
        let svg = cold(&summaries);
        assert_eq!(svg.matches("<circle").count(), 3, "{svg}");
        assert_eq!(svg.matches("<polyline").count(), 2);
        assert_eq!(svg.matches("<g ").count(), svg.matches("</g>").count());
        let heights: Vec<f64> =
            svg.split("cy=\"").skip(1).filter_map(|rest| rest.split('"').next()?.parse().ok()).collect();
        // The baseline is drawn first.
        assert!(heights[0] < heights[2] && heights[2] < heights[1], "{heights:?}");
    }

    #[test]
    fn nothing_measured_is_an_empty_picture() {
        let svg = cold(&[]);
        assert_eq!(svg.matches("<circle").count(), 0);
        assert!(!svg.contains("NaN"), "{svg}");
    }

    #[test]
    fn steps_are_round() {
        for (most, expected) in [(6.0, 1.0), (7.0, 2.0), (12.0, 2.0), (25.0, 5.0), (0.9, 0.2)] {
            assert!((step(most) - expected).abs() < 1e-9, "{most}: {}", step(most));
        }
    }
}
