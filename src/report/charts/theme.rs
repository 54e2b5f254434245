//! Colours: plotters draws with placeholders, and the SVG names classes instead, so that one drawing serves
//! light and dark pages and carries no colour of its own.

use std::fmt::Write;

use plotters::style::RGBColor;

/// Lines that can be told apart: a colour and a dash each.
pub const STYLES: usize = 32;

/// Light and dark: after Okabe & Ito, whose colours are told apart by all kinds of sight, darkened or lightened
/// to a contrast of 3 against the page.
const PALETTE: [(&str, &str); 8] = [
    ("#0072b2", "#5ab0f0"),
    ("#d55e00", "#ff9150"),
    ("#00866a", "#3ccb9f"),
    ("#a84c88", "#e39bc8"),
    ("#a66f00", "#f0bf4c"),
    ("#2b86c4", "#9ad4ff"),
    ("#6b6b6b", "#b4b4b4"),
    ("#7b2d43", "#dd8ea4"),
];
const DASHES: [&str; 4] = ["none", "14 6", "4 5", "18 5 4 5"];

/// What is drawn and is no line of a model: placeholder, class, light and dark colour.
const PARTS: [(Part, &str, &str, &str); 5] = [
    (Part::Text, "tx", "#5d5a54", "#a9a59c"),
    (Part::Title, "ti", "#1d1b18", "#ece8df"),
    (Part::Grid, "gr", "#e4dfd5", "#3a3733"),
    (Part::Actual, "ac", "#1d1b18", "#ece8df"),
    (Part::Past, "pa", "#a39d92", "#78736a"),
];

/// What is drawn and is no line of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    Text,
    Title,
    Grid,
    Actual,
    Past,
}

/// The placeholder for a part.
pub fn part(part: Part) -> RGBColor {
    RGBColor(1, 0, part as u8)
}

/// The placeholder for the line of a model, by its place in the suite.
pub fn line(style: usize) -> RGBColor {
    RGBColor(1, 1, (style % STYLES) as u8)
}

/// Classes in place of placeholders: `f3` and `l3` fill and stroke in the colour of the fourth model.
pub fn with_classes(svg: &str) -> String {
    let mut svg = svg.replace(" opacity=\"1\"", "").replace(" stroke-width=\"1\"", "").replace(" stroke=\"none\"", "");
    let mut name = |color: RGBColor, attribute: &str, class: &str| {
        let RGBColor(r, g, b) = color;
        let placeholder = format!(" {attribute}=\"#{r:02X}{g:02X}{b:02X}\"");
        if svg.contains(&placeholder) {
            svg = svg.replace(&placeholder, &format!(" class=\"{class}\""));
        }
    };
    for (place, class, ..) in PARTS {
        name(part(place), "stroke", class);
        name(part(place), "fill", if matches!(place, Part::Text | Part::Title) { class } else { "fi" });
    }
    for style in 0..STYLES {
        name(line(style), "stroke", &format!("l{style}"));
        name(line(style), "fill", &format!("f{style}"));
    }
    svg
}

/// The rules for those classes, in the light colours or, for a page, in variables.
pub fn rules(page: bool) -> String {
    let mut css = String::new();
    let color = |name: &str, light: &str| if page { format!("var(--{name})") } else { light.to_string() };
    for (place, class, light, _) in PARTS {
        let property = if matches!(place, Part::Text | Part::Title) { "fill" } else { "stroke" };
        let _ = write!(css, ".{class}{{{property}:{}}}", color(class, light));
    }
    for style in 0..STYLES {
        let hue = style % PALETTE.len();
        let paint = color(&format!("c{hue}"), PALETTE[hue].0);
        // Lines of one colour, eight apart, have dashes of their own; so have neighbours.
        let dash = DASHES[(style + style / PALETTE.len()) % DASHES.len()];
        let _ = write!(css, ".l{style}{{stroke:{paint};stroke-dasharray:{dash}}}.f{style}{{fill:{paint}}}");
        if page {
            // A name that is pointed at shows its line.
            let pointed = format!(".group:has([data-model=\"{style}\"]:hover)");
            let _ = write!(css, "{pointed} polyline[class^=l]:not(.l{style}){{opacity:.12}}");
        }
    }
    css
}

/// The variables that a page's rules name.
pub fn variables(dark: bool) -> String {
    let choose = |light: &'static str, night: &'static str| if dark { night } else { light };
    let mut css = String::new();
    for (_, class, light, night) in PARTS {
        let _ = write!(css, "--{class}:{};", choose(light, night));
    }
    for (hue, (light, night)) in PALETTE.into_iter().enumerate() {
        let _ = write!(css, "--c{hue}:{};", choose(light, night));
    }
    css
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_lines_look_the_same() {
        let rules = rules(false);
        let mut looks: Vec<&str> = rules
            .split(".l")
            .skip(1)
            .map(|rule| rule.split_once('{').and_then(|(_, rest)| rest.split_once('}')).expect("a rule").0)
            .collect();
        assert_eq!(looks.len(), STYLES);
        looks.sort_unstable();
        looks.dedup();
        assert_eq!(looks.len(), STYLES);
    }

    #[test]
    fn colours_stand_out_from_the_page() {
        let luminance = |hex: &str| {
            let channel = |at: usize| {
                let value = f64::from(u8::from_str_radix(&hex[at..at + 2], 16).expect("hex")) / 255.0;
                if value <= 0.04045 { value / 12.92 } else { ((value + 0.055) / 1.055).powf(2.4) }
            };
            0.2126 * channel(1) + 0.7152 * channel(3) + 0.0722 * channel(5)
        };
        let contrast = |one: &str, other: &str| {
            let (one, other) = (luminance(one), luminance(other));
            (one.max(other) + 0.05) / (one.min(other) + 0.05)
        };
        // WCAG 2.2, 1.4.11 for lines and 1.4.3 for text, against the cards of templates/style.css.
        for (light, dark) in PALETTE {
            assert!(contrast(light, "#fffdf9") >= 3.0, "{light} {}", contrast(light, "#fffdf9"));
            assert!(contrast(dark, "#211f1c") >= 3.0, "{dark}");
        }
        for (place, _, light, dark) in PARTS {
            if matches!(place, Part::Text | Part::Title) {
                assert!(contrast(light, "#fffdf9") >= 4.5 && contrast(dark, "#211f1c") >= 4.5);
            }
        }
    }
}
