//! "Did you mean ...?"

/// The candidate that `word` was probably meant to be.
pub(super) fn nearest<'c>(word: &str, candidates: impl IntoIterator<Item = &'c str>) -> Option<&'c str> {
    let lower = word.to_lowercase().replace('_', "-");
    let allowed = (lower.chars().count() / 3).max(1);
    let by_distance = candidates.into_iter().map(|candidate| {
        let distance = strsim::damerau_levenshtein(&lower, &candidate.replace('_', "-"));
        let prefix = lower.len() >= 3
            && (candidate.starts_with(&lower) || candidate.ends_with(&lower) || lower.starts_with(candidate));
        (if prefix { distance.min(1) } else { distance }, candidate)
    });
    by_distance
        .filter(|(distance, candidate)| *distance <= allowed && *distance < candidate.chars().count())
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::nearest;

    #[test]
    fn finds_typos_and_endings_and_nothing_else() {
        let sets = ["safaricom", "admins", "intranet"];
        assert_eq!(nearest("safricom", sets), Some("safaricom"));
        assert_eq!(nearest("Admins", sets), Some("admins"));
        assert_eq!(nearest("admin", sets), Some("admins"));
        assert_eq!(nearest("intra", sets), Some("intranet"));
        assert_eq!(nearest("partners", sets), None);
        assert_eq!(nearest("port", ["ports", "protocol"]), Some("ports"));
        assert_eq!(nearest("", sets), None);
    }
}
