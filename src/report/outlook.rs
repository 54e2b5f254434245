//! The picture of a forecast past the end of the data, as a file or a page.

use askama::Template;

pub use super::charts::{Outlook, Panel};
use super::charts::{inline, rules, standalone, variables};
use crate::{Error, Result};

#[derive(Template)]
#[template(path = "outlook.html")]
struct Page<'a> {
    title: &'a str,
    name: &'a str,
    facts: &'a [String],
    light: String,
    dark: String,
    style: &'static str,
    rules: String,
    chart: String,
}

impl Outlook {
    /// An SVG file.
    ///
    /// # Errors
    /// If it cannot be drawn.
    pub fn svg(&self) -> Result<String> {
        standalone(self)
    }

    /// A page of its own, with `facts` above the picture.
    ///
    /// # Errors
    /// If it cannot be drawn.
    pub fn page(&self, facts: &[String]) -> Result<String> {
        let page = Page {
            title: &self.title,
            name: &self.name,
            facts,
            light: variables(false),
            dark: variables(true),
            style: include_str!("../../templates/style.css"),
            rules: rules(true),
            chart: inline(self)?,
        };
        page.render().map_err(|error| Error::other(format!("cannot make the page: {error}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outlook(variates: usize) -> Outlook {
        let panel = |variate: usize| Panel {
            variate: format!("v{variate}<b>"),
            past: (0..40).map(f64::from).collect(),
            future: (40..52).map(f64::from).collect(),
            bands: [2.0, 5.0]
                .map(|half| {
                    (
                        (40..52).map(|row| f64::from(row) - half).collect(),
                        (40..52).map(|row| f64::from(row) + half).collect(),
                    )
                })
                .to_vec(),
        };
        Outlook {
            title: "passengers & more".into(),
            name: "ridge, with 80 and 95 % intervals".into(),
            times: (0..52).map(|row| format!("t{row}")).collect(),
            panels: (0..variates).map(panel).collect(),
        }
    }

    #[test]
    fn past_future_and_bands_are_drawn_and_times_named() -> Result<()> {
        let svg = outlook(1).svg()?;
        assert_eq!(svg.matches("<polygon").count(), 2, "{svg}");
        assert!(svg.contains("class=\"ac\"") && svg.contains("class=\"l0\"") && svg.contains("\nt20\n"), "{svg}");
        assert!(
            svg.contains("v0&#60;b&#62;: 39.0000 in the last known row, 40.0000 in the next, 51.0000 after 12 rows")
        );
        Ok(())
    }

    #[test]
    fn variates_have_panels_and_the_last_of_many_none() -> Result<()> {
        let svg = outlook(20).svg()?;
        assert_eq!(svg.matches("<polygon").count(), 24);
        assert!(svg.contains("8 more variates are not drawn"));
        Ok(())
    }

    #[test]
    fn a_page_holds_all_it_needs() -> Result<()> {
        let page = outlook(1).page(&["24 rows & their <future>".into()])?;
        assert!(
            page.contains("<svg class=\"chart\"") && page.contains("24 rows &#38; their &#60;future&#62;"),
            "{page}"
        );
        assert!(!page.contains("http://") && !page.contains("https://"));
        Ok(())
    }

    #[test]
    fn odd_numbers_are_drawn_without_a_panic() -> Result<()> {
        for value in [f64::NAN, f64::INFINITY, 0.0, -1e300] {
            let bands = vec![(vec![value; 2], vec![value; 2])];
            let panel = Panel { variate: String::new(), past: vec![value], future: vec![value; 2], bands };
            Outlook { title: String::new(), name: String::new(), times: vec![], panels: vec![panel] }.svg()?;
        }
        Outlook { title: String::new(), name: String::new(), times: vec![], panels: vec![] }.svg().map(drop)
    }
}
