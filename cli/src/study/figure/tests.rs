use super::*;

const HOSTILE: [f64; 8] = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 0.0, -1.0, 1e300, 5e-324, 2.0];

fn figure(plot: Plot, scale: AxisScale) -> Figure {
    let axis = |label: &str| Axis { label: label.into(), scale };
    Figure { title: "A & B".into(), caption: "Less <than>.".into(), x: axis("time (ms)"), y: axis("loss (nats)"), plot }
}

fn point(x: f64, y: f64) -> Point {
    Point { x, y, interval: Some((y - 1.0, y + x)) }
}

/// All kinds of plots with these values.
fn plots(values: &[f64]) -> Vec<Plot> {
    let all = || values.iter().flat_map(|x| values.iter().map(|y| point(*x, *y)));
    let bar = |v: &f64| Bar { name: format!("<bar> {}", values.len()), value: *v, interval: Some((v - 1.0, 2.0 * v)), mark: Some(*v) };
    let heat = |name: &str| Heat { name: name.into(), rows: 2, cols: values.len() / 2, values: values.to_vec() };
    vec![
        Plot::Lines(vec![Series { name: "a".into(), points: all().collect() }, Series { name: "b".into(), points: Vec::new() }]),
        Plot::Points(all().map(|p| ("a < b".to_string(), p)).collect()),
        Plot::Bars(values.iter().map(bar).collect()),
        Plot::Heat(vec![heat("0 a"), heat("0 b"), heat("1 a"), heat("1 b"), heat("c")]),
    ]
}

/// Values of attributes that are numbers, and of paths.
fn check(svg: &str) {
    let lower = svg.to_lowercase();
    assert!(!lower.contains("nan") && !lower.contains("inf"), "{svg}");
    assert_eq!(svg.matches("class=\"axis-label").count(), 2, "{svg}");
    assert!(svg.contains(">time (ms)<") && svg.contains(">loss (nats)<"), "{svg}");
    assert!(svg.contains("role=\"img\"") && svg.contains("<title>A &amp; B</title>") && svg.contains("Less &lt;than&gt;."), "{svg}");
}

#[test]
fn a_file_has_its_namespace_and_style() {
    let figure = figure(Plot::Lines(vec![Series { name: "a".into(), points: vec![point(1.0, 2.0), point(2.0, 3.0)] }]), AxisScale::Linear);
    let (file, style) = (figure.file(), format!("<style>\n{STYLE}</style>\n"));
    check(&file);
    assert!(file.starts_with("<svg xmlns=\"http://www.w3.org/2000/svg\" role="), "{file}");
    assert_eq!(file.replacen(" xmlns=\"http://www.w3.org/2000/svg\"", "", 1).replacen(&style, "", 1), figure.svg());
    assert!(!STYLE.contains(['<', '&']), "the style is no text of XML");
}

#[test]
fn every_plot_of_hostile_values_has_axes_and_finite_numbers() {
    for scale in [AxisScale::Linear, AxisScale::Log] {
        for values in [&HOSTILE[..], &HOSTILE[..6], &[2.0, 2.0, 2.0], &[1e-9], &[1e149, -1e149], &[-3.0, -2.0], &[1e-149, 1e149]] {
            for plot in plots(values) {
                check(&figure(plot, scale).svg());
            }
        }
    }
}

#[test]
fn a_plot_of_nothing_says_so() {
    let empty = [Plot::Lines(Vec::new()), Plot::Points(Vec::new()), Plot::Bars(Vec::new()), Plot::Heat(Vec::new())];
    let nothing = plots(&[f64::NAN; 4]).into_iter().chain(empty);
    for plot in nothing {
        let svg = figure(plot, AxisScale::Linear).svg();
        check(&svg);
        assert_eq!(svg.matches(">no data<").count(), 1, "{svg}");
    }
    let negative = figure(Plot::Points(vec![("a".into(), point(-1.0, 1.0))]), AxisScale::Log).svg();
    assert!(negative.contains(">no data<"), "{negative}");
}

#[test]
fn a_heat_map_with_values_missing_draws_those_that_are_there() {
    let maps = vec![
        Heat { name: "a".into(), rows: 40, cols: 40, values: vec![1.0, 2.0] },
        Heat { name: "b".into(), rows: 0, cols: 9, values: vec![1.0] },
    ];
    check(&figure(Plot::Heat(maps), AxisScale::Linear).svg());
}

#[test]
fn the_same_figure_is_the_same_text() {
    let svg = || plots(&[1.0, 2.0, 3.5, 4.0]).into_iter().map(|p| figure(p, AxisScale::Log).svg()).collect::<String>();
    assert_eq!(svg(), svg());
}
