//! `.hgrm`: the percentile distribution as text, in the layout that HdrHistogram prints and that
//! its plotters read.
//!
//! Values are in microseconds with three decimals; the footer gives mean, deviation, maximum and
//! count.

use std::fmt::Write;

use super::hist::Latency;

/// Points for each halving of the distance to 100 %, as HdrHistogram does by default.
const TICKS_PER_HALF_DISTANCE: u32 = 5;

/// Nanoseconds in the unit of the file.
const MICROSECOND: f64 = 1e3;

/// The file's text. An empty histogram gives a header and a footer.
pub fn text(latency: &Latency) -> String {
    let mut out = String::new();
    // Writing to a string cannot fail, so the results carry nothing.
    let _ = write_to(&mut out, latency);
    out
}

fn write_to(out: &mut String, latency: &Latency) -> std::fmt::Result {
    let histogram = latency.histogram();
    let scale = MICROSECOND;
    writeln!(
        out,
        "{:>12} {:>14} {:>10} {:>14}\n",
        "Value", "Percentile", "TotalCount", "1/(1-Percentile)"
    )?;
    let mut total = 0;
    for point in histogram.iter_quantiles(TICKS_PER_HALF_DISTANCE) {
        total += point.count_since_last_iteration();
        let value = point.value_iterated_to() as f64 / scale;
        let quantile = point.quantile_iterated_to();
        if quantile < 1.0 {
            let inverse = 1.0 / (1.0 - quantile);
            writeln!(
                out,
                "{value:12.3} {quantile:2.12} {total:10} {inverse:14.2}"
            )?;
        } else {
            writeln!(out, "{value:12.3} {quantile:2.12} {total:10}")?;
        }
    }
    let (mean, deviation) = (histogram.mean() / scale, histogram.stdev() / scale);
    writeln!(
        out,
        "#[Mean    = {mean:12.3}, StdDeviation   = {deviation:12.3}]"
    )?;
    let max = histogram.max() as f64 / scale;
    writeln!(
        out,
        "#[Max     = {max:12.3}, Total count    = {:12}]",
        histogram.len()
    )?;
    let sub_buckets = histogram.distinct_values() / (usize::from(histogram.buckets()) + 1) * 2;
    writeln!(
        out,
        "#[Buckets = {:12}, SubBuckets     = {sub_buckets:12}]",
        histogram.buckets()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_distribution_prints_as_hdrhistogram_does() {
        let mut latency = Latency::new();
        for ns in [1000, 2000, 3000, 4000] {
            latency.record_ns(ns);
        }
        let expected = "       Value     Percentile TotalCount 1/(1-Percentile)

       1.000 0.000000000000          1           1.00
       1.000 0.100000000000          1           1.11
       1.000 0.200000000000          1           1.25
       2.000 0.300000000000          2           1.43
       2.000 0.400000000000          2           1.67
       2.000 0.500000000000          2           2.00
       3.001 0.550000000000          3           2.22
       3.001 0.600000000000          3           2.50
       3.001 0.650000000000          3           2.86
       3.001 0.700000000000          3           3.33
       4.001 0.750000000000          4           4.00
       4.001 1.000000000000          4
#[Mean    =        2.501, StdDeviation   =        1.118]
#[Max     =        4.001, Total count    =            4]
#[Buckets =           26, SubBuckets     =         2048]
";
        assert_eq!(text(&latency), expected);
    }

    #[test]
    fn an_empty_distribution_is_still_a_file() {
        let text = text(&Latency::new());
        assert!(text.starts_with("       Value"));
        assert!(text.contains("Total count    =            0]"));
        assert_eq!(text.lines().count(), 5);
    }
}
