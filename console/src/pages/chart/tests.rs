use super::*;

fn axis() -> Axis {
    Axis { from: when::from_ms(1_800_000_000_000), step: 60 }
}

fn series(colour: &'static str, values: &[Option<f64>]) -> Series {
    Series { label: colour.to_owned(), colour, values: values.to_vec() }
}

#[test]
fn a_gap_is_a_gap() {
    let values = [Some(1.0), Some(2.0), None, Some(3.0), Some(4.0)];
    let chart = Chart::new("requests", "/s", Style::Lines, axis(), &[series("teal", &values)]);
    assert_eq!(chart.layers[0].path.matches('M').count(), 2);
    assert_eq!(chart.gaps.len(), 1);
    let area = Chart::new("requests", "/s", Style::Stacked, axis(), &[series("teal", &values)]);
    assert_eq!(area.layers[0].path.matches('Z').count(), 2);
}

#[test]
fn areas_stand_on_each_other() {
    let chart = Chart::new(
        "r",
        "/s",
        Style::Stacked,
        axis(),
        &[series("teal", &[Some(4.0); 2]), series("red", &[Some(1.0); 2])],
    );
    assert_eq!(chart.grid[0].label, "5 /s");
    assert_eq!(chart.layers[1].path, "M0 14L332 14L332 32L0 32Z");
}

#[test]
fn numbers_are_short() {
    assert_eq!(
        [0.0, 0.42, 7.0, 12.3, 1_005.0, 1_234_567.0].map(figure),
        ["0", "0.42", "7", "12", "1,005", "1,234,567"]
    );
    assert_eq!([0.0, 0.3, 7.0, 41.0, 612.0].map(round_up), [1.0, 0.5, 10.0, 50.0, 1000.0]);
}

#[test]
fn nothing_to_draw_draws_nothing() {
    let chart = Chart::new("requests", "per second", Style::Stacked, axis(), &[]);
    assert!(chart.render().unwrap().contains("<svg"));
}

#[test]
fn the_newest_sample_alone_is_in_the_picture() {
    let path = |values: &[Option<f64>]| Spark::new("hits".to_owned(), "blue", values).path;
    assert_eq!(path(&[None, None, None, None, Some(5.0)]), "M85 2h3");
    assert_eq!(path(&[Some(5.0), None, None, None, Some(2.5)]), "M0 2h3M85 10h3");
    assert_eq!(path(&[None, None, None, Some(2.5), Some(5.0)]), "M66 10L88 2");
}
