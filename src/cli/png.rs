//! A picture as pixels.

use std::sync::Arc;

use anyhow::{Context, bail};
use resvg::{
    tiny_skia::{Pixmap, Transform},
    usvg::{Options, Tree, fontdb::Database},
};

/// Pixels for each of the picture's own: sharp on a dense screen and on paper.
const SCALE: f32 = 2.0;

/// `svg` as a PNG file, its text in a font of this machine.
///
/// # Errors
/// If there is no font here, without which axes would have no labels.
pub fn png(svg: &str) -> anyhow::Result<Vec<u8>> {
    let mut fonts = Database::new();
    fonts.load_system_fonts();
    let Some(face) = fonts.faces().find(|face| !face.monospaced).or_else(|| fonts.faces().next()) else {
        bail!(
            "there is no font on this machine to label a PNG with: write .svg or .html, or install one (fonts-dejavu)"
        );
    };
    // Where none of the fonts that the picture asks for is here.
    let family = face.families.first().map(|(name, _)| name.clone()).unwrap_or_default();
    let sans = ["DejaVu Sans", "Liberation Sans", "Noto Sans", "Arial", "Helvetica"];
    let known = |name: &&str| fonts.faces().any(|face| face.families.iter().any(|(family, _)| family == name));
    let family = sans.iter().find(|name| known(name)).map_or(family, ToString::to_string);
    fonts.set_sans_serif_family(family.clone());
    let options = Options { font_family: family, fontdb: Arc::new(fonts), ..Options::default() };
    let tree = Tree::from_str(svg, &options).context("cannot read the picture")?;
    let size = tree.size();
    let side = |length: f32| (length * SCALE).ceil() as u32;
    let mut pixels = Pixmap::new(side(size.width()), side(size.height())).context("the picture has no size")?;
    // The page behind the picture is a rule for browsers.
    pixels.fill(resvg::tiny_skia::Color::from_rgba8(0xff, 0xfd, 0xf9, 0xff));
    resvg::render(&tree, Transform::from_scale(SCALE, SCALE), &mut pixels.as_mut());
    pixels.encode_png().context("cannot write PNG")
}
