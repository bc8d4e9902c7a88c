//! The known key that a wrong one was probably meant to be.

use super::keys::KEYS;

/// The known key nearest to `wrong` by edits of its table and of its name; an entirely wrong table costs two edits, so that
/// a right name in a wrong table is found. Among equals the better name wins, then the better table.
pub(super) fn nearest_key(wrong: &str) -> &'static str {
    let wrong = wrong.to_lowercase();
    let (table, name) = wrong.rsplit_once('.').unwrap_or(("", &wrong));
    let distance = |path: &str| {
        let (known_table, known_name) = path.split_once('.').unwrap_or(("", path));
        let (tables, names) = (strsim::osa_distance(known_table, table), strsim::osa_distance(known_name, name));
        (tables.min(2) + names, names, tables)
    };
    KEYS.iter().map(|key| key.path).min_by_key(|path| distance(path)).expect("there are keys")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_of_the_finger_and_of_the_table_find_their_key() {
        for (wrong, meant) in [
            ("sam.roh", "sam.rho"),
            ("sam.Rho", "sam.rho"),
            ("optimiser.lr", "optimizer.lr"),
            ("rho", "sam.rho"),
            ("training.label_noise", "data.label_noise"),
            ("batch.sise", "batch.size"),
            ("SAM.RHO", "sam.rho"),
            ("optimzer.kind", "optimizer.kind"),
            ("optmizr.kind", "optimizer.kind"),
            ("sam.lr", "optimizer.lr"),
            ("sam.weight-decay", "sam.weight_decay"),
            ("model.classes", "data.classes"),
        ] {
            assert_eq!(nearest_key(wrong), meant, "{wrong}");
        }
    }
}
