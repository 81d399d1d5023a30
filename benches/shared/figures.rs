//! Medians and percentiles.

/// The value below which such a share (0 to 1) of them lies; 0 of none.
pub fn quantile(values: &[f64], share: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let index = (sorted.len().saturating_sub(1) as f64 * share).round() as usize;
    sorted.get(index).copied().unwrap_or_default()
}

/// The value in the middle; 0 of none.
pub fn median(values: &[f64]) -> f64 {
    quantile(values, 0.5)
}

/// `1.05 (0.98 to 1.11)`.
pub fn spread(values: &[f64]) -> String {
    let (least, most) = (quantile(values, 0.0), quantile(values, 1.0));
    format!("{:.3} ({least:.3} to {most:.3})", median(values))
}
