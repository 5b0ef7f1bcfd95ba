//! Near misses: the name that was probably meant.

/// Names longer than this are not compared: the comparison is quadratic.
const LONGEST: usize = 64;

/// The closest of some names, if it is close: at most a third of its letters differ.
pub(super) fn closest<S: AsRef<str>>(name: &str, names: impl IntoIterator<Item = S>) -> Option<S> {
    if name.len() > LONGEST {
        return None;
    }
    let name = name.to_ascii_lowercase();
    let near = names.into_iter().filter_map(|known| {
        let text = known.as_ref();
        if text.len() > LONGEST {
            return None;
        }
        let distance = strsim::damerau_levenshtein(&name, &text.to_ascii_lowercase());
        (distance * 3 <= text.chars().count()).then_some((distance, known))
    });
    near.min_by_key(|(distance, _)| *distance).map(|(_, known)| known)
}
