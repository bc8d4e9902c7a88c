//! A report as one page that needs nothing else: style and figures lie in it, and no script does.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::document::{Block, Cell, Document, Drawing, Section, Table};

/// The style of the page.
const STYLE: &str = include_str!("style.css");

/// The page; `svg` gives the drawing of a figure, by its stem, or why there is none.
pub fn page(document: &Document, svg: impl Fn(&str) -> Result<String, String>) -> String {
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (document.title) }
                style { (PreEscaped(STYLE)) }
            }
            body {
                header {
                    h1 { (document.title) }
                    p.lead { (document.lead) }
                    dl { @for (name, fact) in &document.facts { div { dt { (name) } dd { (fact) } } } }
                }
                main { @for section in &document.sections { (self::section(section, &svg)) } }
            }
        }
    };
    page.into_string()
}

fn section(section: &Section, svg: &impl Fn(&str) -> Result<String, String>) -> Markup {
    let is_drawing = |block: &Block| matches!(block, Block::Drawing(_));
    html! {
        section {
            h2 { (section.title) }
            // Figures that follow each other stand side by side where there is room.
            @for blocks in section.blocks.chunk_by(|a, b| is_drawing(a) == is_drawing(b)) {
                @if is_drawing(&blocks[0]) {
                    div.figures { @for block in blocks { (self::block(block, svg)) } }
                } @else {
                    @for block in blocks { (self::block(block, svg)) }
                }
            }
        }
    }
}

fn block(block: &Block, svg: &impl Fn(&str) -> Result<String, String>) -> Markup {
    match block {
        Block::Text(text) => html! { p { (text) } },
        Block::List(list) => html! { ul { @for item in list { li { (item) } } } },
        Block::Table(table) => self::table(table),
        Block::Drawing(Drawing { stem, caption, .. }) => html! {
            figure id=(stem) {
                @match svg(stem) {
                    Ok(svg) => img alt=(caption) src={ "data:image/svg+xml;base64," (STANDARD.encode(svg)) };,
                    Err(reason) => p.missing { "not drawn: " (reason) },
                }
                figcaption { (caption) " " span { "figures/" (stem) } }
            }
        },
    }
}

fn table(table: &Table) -> Markup {
    let is_number = |cell: &Cell| cell.number.is_some() || cell.shown == "–";
    html! {
        div.table {
            table {
                caption { span { (table.caption) } }
                thead { tr { @for name in &table.columns { th { (name) } } } }
                tbody {
                    @for row in &table.rows {
                        tr { @for cell in row { td.number[is_number(cell)] { (cell.shown) } } }
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::figure::{Figure, Stems};

    #[test]
    fn the_page_holds_everything_and_what_a_study_calls_itself_is_no_markup() {
        let figure = Figure::Stems(Stems { x: "k".into(), y: crate::figure::Axis::linear("lambda"), sets: Vec::new() });
        let drawing =
            |stem: &str| Block::Drawing(Drawing { stem: stem.into(), caption: "<b>".into(), figure: figure.clone() });
        let section = Section {
            title: "a & b".into(),
            blocks: vec![drawing("one"), drawing("two"), Block::Text("<script>".into())],
        };
        let document =
            Document { title: "\"t\"".into(), lead: String::new(), facts: Vec::new(), sections: vec![section] };
        let page = page(&document, |stem| if stem == "one" { Ok("<svg/>".into()) } else { Err("it is empty".into()) });
        assert!(!page.contains("<script>") && !page.contains("<b>") && page.contains("a &amp; b"));
        assert!(page.contains(&STANDARD.encode("<svg/>")) && page.contains("not drawn: it is empty"));
        assert_eq!(page.matches("class=\"figures\"").count(), 1, "two figures side by side");
        for outside in ["http:", "https:", "<link", "url("] {
            assert!(!page.contains(outside), "{outside}");
        }
    }
}
