//! Colours, markers and dashes in their fixed order, and the colour map of grids.

use kuva::plot::ColorMap;

/// Red, green and blue.
pub(super) type Rgb = (u8, u8, u8);

/// Text, axes and outlines.
pub(super) const INK: Rgb = (34, 34, 34);
/// The lines behind the data.
pub(super) const GRID: Rgb = (226, 226, 226);
/// Where a value is missing.
pub(super) const MISSING: Rgb = (190, 190, 190);
/// The sheet.
pub(super) const PAPER: Rgb = (255, 255, 255);

/// The shape at a series' points.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Marker {
    Circle,
    Square,
    Triangle,
    Diamond,
    Inverted,
    Cross,
}

/// How one series looks: told apart by colour, and in grey by marker and dash.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Look {
    /// Of line, marker and band.
    pub(super) colour: Rgb,
    /// At its points.
    pub(super) marker: Marker,
    /// Lengths of stroke and gap in pixels; empty: solid.
    pub(super) dash: &'static [f64],
}

/// The colours of Okabe and Ito, "Color universal design" (2008), which readers with any colour vision tell apart; the
/// darker first, as lines on white paper, and without their yellow, which such a line does not show.
const LOOKS: [Look; 7] = [
    Look { colour: (0, 114, 178), marker: Marker::Circle, dash: &[] },
    Look { colour: (213, 94, 0), marker: Marker::Square, dash: &[7.0, 3.0] },
    Look { colour: (0, 158, 115), marker: Marker::Triangle, dash: &[2.0, 2.5] },
    Look { colour: (204, 121, 167), marker: Marker::Diamond, dash: &[9.0, 3.0, 2.0, 3.0] },
    Look { colour: (230, 159, 0), marker: Marker::Inverted, dash: &[12.0, 3.0] },
    Look { colour: (86, 180, 233), marker: Marker::Cross, dash: &[4.0, 2.0] },
    Look { colour: (0, 0, 0), marker: Marker::Circle, dash: &[9.0, 2.5, 2.0, 2.5, 2.0, 2.5] },
];

/// Of how many series a figure's looks suffice.
pub(super) const MOST: usize = LOOKS.len();

/// The look of series `index`, below [`MOST`].
pub(super) fn look(index: usize) -> Look {
    LOOKS[index]
}

/// The colour of `share` from 0 (dark blue) to 1 (yellow): viridis, of even steps to the eye and rising in lightness, so
/// that it survives printing in grey.
pub(super) fn viridis(share: f64) -> Rgb {
    ColorMap::Viridis.map_rgb(share.clamp(0.0, 1.0)).unwrap_or(MISSING)
}

/// Black or white, whichever is read better on `ground`.
pub(super) fn readable_on(ground: Rgb) -> Rgb {
    // Rec. 601's luma; the threshold is where black and white contrast alike with viridis' greens.
    let luma = 0.299 * f64::from(ground.0) + 0.587 * f64::from(ground.1) + 0.114 * f64::from(ground.2);
    if luma > 125.0 { (0, 0, 0) } else { PAPER }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_looks_share_a_colour_nor_both_marker_and_dash() {
        for a in 0..MOST {
            for b in 0..a {
                let (a, b) = (look(a), look(b));
                assert_ne!(a.colour, b.colour);
                assert_ne!((a.marker, a.dash), (b.marker, b.dash));
            }
        }
    }

    #[test]
    fn the_colour_map_rises_in_lightness() {
        let luma = |(r, g, b): Rgb| 299 * u32::from(r) + 587 * u32::from(g) + 114 * u32::from(b);
        let lumas: Vec<u32> = (0..=20).map(|i| luma(viridis(f64::from(i) / 20.0))).collect();
        assert!(lumas.windows(2).all(|pair| pair[0] < pair[1]), "{lumas:?}");
        assert_eq!((readable_on(viridis(0.0)), readable_on(viridis(1.0))), (PAPER, (0, 0, 0)));
    }
}
