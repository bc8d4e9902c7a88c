//! The one typeface of all figures: how wide a text is, and how an SVG carries its letters along.

use std::sync::OnceLock;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ttf_parser::Face;

/// A part of DejaVu Sans with the letters that figures need (`assets/README.md`). kuva's PDF takes them from the whole
/// typeface, which kuva holds.
pub(super) const LETTERS: &[u8] = include_bytes!("../../assets/DejaVuSans-figures.ttf");

/// The families of an SVG's text: its own letters, then such as are about as wide, for letters that it does not carry.
pub(super) const FAMILIES: &str = "DejaVu Sans, Verdana, Geneva, sans-serif";

fn face() -> &'static Face<'static> {
    static FACE: OnceLock<Face<'static>> = OnceLock::new();
    FACE.get_or_init(|| Face::parse(LETTERS, 0).expect("the typeface in assets is whole, as the tests read it"))
}

/// Pixels that `text` takes at `size`.
pub(super) fn width(text: &str, size: u32) -> f64 {
    let face = face();
    let em = f64::from(face.units_per_em());
    // A letter that it lacks is taken for one of the usual width.
    let units = |letter| face.glyph_index(letter).and_then(|g| face.glyph_hor_advance(g)).map_or(0.6 * em, f64::from);
    text.chars().map(units).sum::<f64>() / em * f64::from(size)
}

/// `text` broken at spaces into lines of at most `room` pixels; a longer word stays whole.
pub(super) fn wrap(text: &str, room: f64, size: u32) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if width(line, size) + width(" ", size) + width(word, size) <= room => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.into()),
        }
    }
    lines
}

/// The style element that gives an SVG the letters, for readers without any typeface.
pub(super) fn style() -> &'static str {
    static STYLE: OnceLock<String> = OnceLock::new();
    STYLE.get_or_init(|| {
        let letters = STANDARD.encode(LETTERS);
        format!(
            "<style>@font-face{{font-family:'DejaVu Sans';src:url('data:font/ttf;base64,{letters}') format('truetype')}}\
             </style>"
        )
    })
}

/// `digits` raised, as of a power.
pub(super) fn superscript(number: i32) -> String {
    let raised = |c| match c {
        '-' => '⁻',
        '1' => '¹',
        '2' => '²',
        '3' => '³',
        digit => char::from_u32('⁰' as u32 + digit as u32 - '0' as u32).unwrap_or(digit),
    };
    number.to_string().chars().map(raised).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_typeface_has_every_letter_that_figures_are_made_of() {
        let needed = "abcxyzABCXYZ0123456789 .,:;()[]{}<>=+-−±×·/%|‖'\"’–—…ρελαβσμθτπΔΣ∇∂∞≤≥≈√∈→²³⁰¹⁴⁵⁶⁷⁸⁹⁻₀₁₂äöüé*";
        for letter in needed.chars() {
            assert!(face().glyph_index(letter).is_some(), "{letter} is not in the typeface");
        }
    }

    #[test]
    fn widths_are_those_of_dejavu_sans() {
        // Its digits are all 1303 of 2048 units wide.
        assert!((width("0123", 2048) - 4.0 * 1303.0).abs() < 1e-9);
        assert!(width("mm", 14) > width("ii", 14));
    }

    #[test]
    fn lines_break_at_spaces_and_nowhere_else() {
        assert_eq!(wrap("test error of the best ρ (%)", 90.0, 14), ["test error of", "the best ρ", "(%)"]);
        assert_eq!(wrap("unbreakable", 10.0, 14), ["unbreakable"]);
        assert!(wrap("", 10.0, 14).is_empty());
    }

    #[test]
    fn powers_are_raised() {
        assert_eq!(superscript(-12), "⁻¹²");
        assert_eq!(superscript(3045), "³⁰⁴⁵");
    }
}
