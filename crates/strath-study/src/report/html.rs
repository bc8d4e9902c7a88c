//! A report as one page that needs nothing else: style and figures lie in it, and no script does.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::document::{Block, Cell, Document, Section, Table};

/// The style of the page.
const STYLE: &str = include_str!("style.css");

/// The page; `svg` gives the drawing of a figure, by its stem, or why there is none.
pub fn page(document: &Document, svg: impl Fn(&str) -> Result<String, String>) -> String {
    let title = escaped(&document.title);
    let mut body = format!("<header>\n<h1>{title}</h1>\n<p class=\"lead\">{}</p>\n<dl>\n", escaped(&document.lead));
    for (name, fact) in &document.facts {
        body += &format!("<div><dt>{}</dt><dd>{}</dd></div>\n", escaped(name), escaped(fact));
    }
    body += "</dl>\n</header>\n<main>\n";
    for section in &document.sections {
        body += &self::section(section, &svg);
    }
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n<title>{title}</title>\n<style>\n{STYLE}</style>\n</head>\n\
         <body>\n{body}</main>\n</body>\n</html>\n"
    )
}

fn section(section: &Section, svg: &impl Fn(&str) -> Result<String, String>) -> String {
    let mut html = format!("<section>\n<h2>{}</h2>\n", escaped(&section.title));
    // Figures that follow each other stand side by side where there is room.
    for blocks in section.blocks.chunk_by(|a, b| is_drawing(a) == is_drawing(b)) {
        let are_drawings = is_drawing(&blocks[0]);
        html += if are_drawings { "<div class=\"figures\">\n" } else { "" };
        for block in blocks {
            html += &match block {
                Block::Text(text) => format!("<p>{}</p>\n", escaped(text)),
                Block::List(list) => {
                    let items: String = list.iter().map(|item| format!("<li>{}</li>\n", escaped(item))).collect();
                    format!("<ul>\n{items}</ul>\n")
                }
                Block::Table(table) => self::table(table),
                Block::Drawing(drawing) => {
                    let caption = escaped(&drawing.caption);
                    let drawn = match svg(&drawing.stem) {
                        Ok(svg) => {
                            let data = STANDARD.encode(svg);
                            format!("<img alt=\"{caption}\" src=\"data:image/svg+xml;base64,{data}\">")
                        }
                        Err(reason) => format!("<p class=\"missing\">not drawn: {}</p>", escaped(&reason)),
                    };
                    let name = escaped(&drawing.stem);
                    format!(
                        "<figure id=\"{name}\">{drawn}<figcaption>{caption} <span>figures/{name}</span></figcaption></figure>\n"
                    )
                }
            };
        }
        html += if are_drawings { "</div>\n" } else { "" };
    }
    html + "</section>\n"
}

fn is_drawing(block: &Block) -> bool {
    matches!(block, Block::Drawing(_))
}

fn table(table: &Table) -> String {
    let head: String = table.columns.iter().map(|name| format!("<th>{}</th>", escaped(name))).collect();
    let cell = |cell: &Cell| {
        let class = if cell.number.is_some() || cell.shown == "–" { " class=\"number\"" } else { "" };
        format!("<td{class}>{}</td>", escaped(&cell.shown))
    };
    let rows: String =
        table.rows.iter().map(|row| format!("<tr>{}</tr>\n", row.iter().map(cell).collect::<String>())).collect();
    format!(
        "<div class=\"table\"><table>\n<caption>{}</caption>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{rows}</tbody>\n</table></div>\n",
        escaped(&table.caption)
    )
}

/// A text in which nothing is markup.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::super::document::Drawing;
    use super::*;
    use crate::figure::{Figure, Stems};

    #[test]
    fn the_page_holds_everything_and_what_a_study_calls_itself_is_no_markup() {
        let figure =
            Figure::Stems(Stems { x: "k".into(), y: crate::figure::Axis::linear("lambda"), sets: Vec::new() });
        let drawing = |stem: &str| {
            Block::Drawing(Drawing { stem: stem.into(), caption: "<b>".into(), figure: figure.clone() })
        };
        let section =
            Section { title: "a & b".into(), blocks: vec![drawing("one"), drawing("two"), Block::Text("<script>".into())] };
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
