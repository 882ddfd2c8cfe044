//! A flame graph: the outermost frame below, each as wide as the sockets that were acquired under it.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::leaks::{Leaks, paths};
use super::snapshot::thousands;
use super::svg::xml;

/// Width of the picture, in its own units.
const WIDTH: f64 = 1200.0;
const MARGIN: f64 = 10.0;
/// Height of a frame.
const ROW: f64 = 18.0;
const TITLE: f64 = 34.0;
/// What is narrower is left out.
const LEAST: f64 = 0.3;
/// A character takes so much at the size of the font.
const CHARACTER: f64 = 6.6;

const STYLE: &str = "\
text{font:11px ui-monospace,monospace;fill:#222}\
.title{font:14px system-ui,sans-serif;font-weight:600}\
rect{stroke:#fff;stroke-width:.5}\
@media(prefers-color-scheme:dark){.title{fill:#ddd}rect{stroke:#222}}";

/// A frame, and those that it called.
#[derive(Default)]
struct Node {
    count: u64,
    called: BTreeMap<String, Node>,
}

impl Node {
    fn add(&mut self, path: &[String], count: u64) {
        self.count += count;
        if let [first, rest @ ..] = path {
            let called = self.called.entry(first.clone()).or_default();
            called.add(rest, count);
        }
    }

    fn depth(&self) -> usize {
        let below = self.called.values().map(|node| 1 + node.depth());
        below.max().unwrap_or(0)
    }
}

/// The picture of a report.
pub fn to_svg(leaks: &Leaks) -> String {
    let mut root = Node::default();
    for (path, count) in paths(leaks) {
        root.add(&path, count);
    }
    let height = TITLE + ROW * root.depth() as f64 + MARGIN;
    let states: Vec<String> = leaks.states.iter().map(|s| s.to_string()).collect();
    let title = format!(
        "{} sockets in {}, by where they were acquired",
        thousands(root.count),
        states.join(", ")
    );
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" \
         width=\"{WIDTH}\" height=\"{height}\">\n<style>{STYLE}</style>\n\
         <text class=\"title\" x=\"{MARGIN}\" y=\"20\">{}</text>\n",
        xml(&title)
    );
    let picture = Picture {
        all: root.count,
        scale: (WIDTH - 2.0 * MARGIN) / root.count.max(1) as f64,
        bottom: height - MARGIN,
    };
    picture.called(&root, MARGIN, 1, &mut svg);
    svg.push_str("</svg>\n");
    svg
}

struct Picture {
    all: u64,
    /// Units per socket.
    scale: f64,
    bottom: f64,
}

impl Picture {
    fn called(&self, node: &Node, mut x: f64, depth: usize, svg: &mut String) {
        for (name, called) in &node.called {
            let wide = called.count as f64 * self.scale;
            if wide >= LEAST {
                self.frame(name, called.count, (x, wide), depth, svg);
                self.called(called, x, depth + 1, svg);
            }
            x += wide;
        }
    }

    fn frame(&self, name: &str, count: u64, (x, wide): (f64, f64), depth: usize, svg: &mut String) {
        let y = self.bottom - ROW * depth as f64;
        let percent = 100.0 * count as f64 / self.all.max(1) as f64;
        let about = format!("{name}: {} sockets, {percent:.1} %", thousands(count));
        let (hue, about) = (hue(name), xml(&about));
        // A String takes whatever it is given.
        let _ = write!(
            svg,
            "<g><title>{about}</title><rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{wide:.1}\" \
             height=\"{ROW}\" rx=\"2\" fill=\"hsl({hue},75%,65%)\"/>"
        );
        let room = ((wide - 6.0) / CHARACTER).max(0.0) as usize;
        if room > 2 {
            let text: String = match name.chars().count() <= room {
                true => name.to_owned(),
                false => name.chars().take(room - 1).chain(['…']).collect(),
            };
            let (x, y, text) = (x + 3.0, y + 13.0, xml(&text));
            let _ = write!(svg, "<text x=\"{x:.1}\" y=\"{y:.1}\">{text}</text>");
        }
        svg.push_str("</g>\n");
    }
}

/// Of warm colors the same for the same name.
fn hue(name: &str) -> u32 {
    crc32fast::hash(name.as_bytes()) % 50
}
