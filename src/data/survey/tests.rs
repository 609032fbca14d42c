use super::super::rows::Row;
use super::*;
use crate::outputs::Outputs;
use FindingKind::*;

fn part(name: &str, rows: &[(&str, &str)]) -> Part {
    let row = |(i, (text, label)): (usize, &(&str, &str))| Row {
        name: format!("line {}", i + 2),
        text: text.to_string(),
        second: None,
        label: label.to_string(),
        lossy: false,
    };
    Part { name: name.to_string(), path: "a.csv".into(), rows: rows.iter().enumerate().map(row).collect() }
}

fn of(survey: &Survey, kind: FindingKind) -> Vec<&Finding> {
    survey.findings.iter().filter(|finding| finding.kind == kind).collect()
}

/// The places of each example as `part line: label`.
fn places(finding: &Finding) -> Vec<Vec<String>> {
    let place = |p: &Place| format!("{} {}: {}", p.part, p.place, p.label);
    finding.examples.iter().map(|example| example.places.iter().map(place).collect()).collect()
}

#[test]
fn every_kind_of_fault_is_found_at_its_place() {
    let train = [
        ("a film", "good"),
        ("A  film", "good"),
        ("a film", "bad"),
        ("a film", "good"),
        (" ", "bad"),
        ("no label", ""),
        ("caf\u{fffd}", "good"),
        ("cafÃ©", "bad"),
        ("a\u{0}b", "bad"),
    ];
    let test = [("A FILM", "Good"), ("new", "ugly"), ("no label", "good")];
    let survey = survey(&[part("train", &train), part("test", &test)], &Labels::default(), 5);
    let counts = |part: usize| survey.parts[part].classes.iter().map(|c| (c.name.as_str(), c.rows)).collect::<Vec<_>>();
    assert_eq!(counts(0), [("bad", 4), ("good", 4)]);
    assert_eq!(counts(1), [("bad", 0), ("good", 2)]);
    assert_eq!((survey.parts[0].rows, survey.parts[0].words.median, survey.parts[0].characters.longest), (9, 2, 8));
    let [twice] = of(&survey, Contradiction)[..] else { panic!() };
    assert_eq!((twice.rows, twice.parts.len()), (5, 0));
    let all = ["train line 2: good", "train line 4: bad", "train line 3: good", "train line 5: good", "test line 2: Good"];
    assert_eq!(places(twice), [all]);
    let [repeated] = of(&survey, Duplicate)[..] else { panic!() };
    assert_eq!((repeated.rows, repeated.identical, &repeated.parts[..]), (2, Some(1), &["train".to_string()][..]));
    let [leak] = of(&survey, Leak)[..] else { panic!() };
    assert_eq!((leak.rows, leak.identical), (2, Some(1)));
    assert_eq!(places(leak), [["train line 2: good", "test line 2: Good"], ["train line 7: ", "test line 4: good"]]);
    for (kind, part, line) in [
        (NoText, "train", "train line 6: bad"),
        (NoLabel, "train", "train line 7: "),
        (ReplacementCharacter, "train", "train line 8: good"),
        (Misread, "train", "train line 9: bad"),
        (ControlCharacter, "train", "train line 10: bad"),
        (OtherLabel, "test", "test line 3: ugly"),
    ] {
        let [one] = of(&survey, kind)[..] else { panic!("{kind:?}") };
        assert_eq!((one.rows, &one.parts[..], places(one)), (1, &[part.to_string()][..], vec![vec![line.to_string()]]), "{kind:?}");
    }
    let [missing] = of(&survey, MissingClass)[..] else { panic!() };
    assert_eq!((missing.parts[0].as_str(), missing.problem.as_deref()), ("test", Some("bad")));
}

#[test]
fn sound_data_have_no_findings() {
    let parts = [part("train", &[("a", "x"), ("b", "y")]), part("test", &[("c", "x"), ("d", "y")])];
    assert_eq!(survey(&parts, &Labels::default(), 5).findings, []);
    let all_one = survey(&[part("train", &[("a", "x"), ("b", "X")])], &Labels::default(), 5);
    assert_eq!(all_one.findings.iter().map(|f| f.kind).collect::<Vec<_>>(), [OneClass]);
}

#[test]
fn labels_that_are_no_classes_are_told_with_the_readers_reason() {
    let found = survey(&[part("train", &[("a", "0"), ("b", "1"), ("c", "-1")])], &Labels::default(), 5);
    let [problem] = of(&found, NoClasses)[..] else { panic!() };
    assert!(problem.problem.as_deref().unwrap().contains("line 4: the label \"-1\" usually marks rows without a label"), "{problem:?}");
    let named = Labels::parse(&["0=no".to_string(), "1=yes".to_string(), "-1=no".to_string()]).unwrap();
    let found = survey(&[part("train", &[("a", "0"), ("b", "1"), ("a", "-1"), ("d", "2")])], &named, 1);
    assert_eq!(of(&found, NoClasses), [] as [&Finding; 0]);
    // 0 and -1 are one class.
    assert_eq!((of(&found, Contradiction).len(), of(&found, Duplicate)[0].rows), (0, 1));
}

#[test]
fn examples_are_limited_and_counts_are_not() {
    let rows: Vec<(&str, &str)> = (0..50).map(|i| ("", if i % 2 == 0 { "a" } else { "b" })).collect();
    let found = survey(&[part("train", &rows)], &Labels::default(), 3);
    assert_eq!((found.findings[0].rows, found.findings[0].examples.len()), (50, 3));
}

#[test]
fn pairs_are_the_same_if_both_texts_are() {
    let mut train = part("train", &[("a", "x"), ("a", "y"), ("A", "x"), ("b", "y")]);
    for (row, second) in train.rows.iter_mut().zip(["one", "two", "ONE", " "]) {
        row.second = Some(second.to_string());
    }
    let found = survey(&[train], &Labels::default(), 5);
    assert_eq!(of(&found, Contradiction), [] as [&Finding; 0]);
    let [repeated] = of(&found, Duplicate)[..] else { panic!() };
    assert_eq!((repeated.rows, repeated.examples[0].text.as_str()), (1, "a\n\none"));
    assert_eq!(places(of(&found, NoText)[0]), [["train line 5: y"]]);
}

fn task(outputs: Outputs) -> Labels {
    Labels { outputs, ..Labels::default() }
}

#[test]
fn several_labels_are_counted_one_by_one_and_compared_as_sets() {
    let train = [
        ("a", "joy|anger"),
        ("a", "[\"anger\", \"joy\"]"),
        ("A", "joy"),
        ("b", "[]"),
        ("b", "[]"),
        ("c", ""),
        ("d", "[1.5]"),
        ("e", "joy"),
    ];
    let test = [("f", "joy|sad"), ("g", "joy")];
    let found = survey(&[part("train", &train), part("test", &test)], &task(Outputs::Labels), 5);
    let counts = |part: usize| found.parts[part].classes.iter().map(|c| (c.name.as_str(), c.rows)).collect::<Vec<_>>();
    assert_eq!((counts(0), found.parts[0].none, found.parts[0].numbers), (vec![("anger", 2), ("joy", 4)], Some(2), None));
    assert_eq!((counts(1), found.parts[1].none), (vec![("anger", 0), ("joy", 1)], Some(0)));
    assert_eq!(
        places(of(&found, Duplicate)[0]),
        [["train line 2: joy|anger", "train line 3: [\"anger\", \"joy\"]"], ["train line 5: []", "train line 6: []"]]
    );
    let [twice] = of(&found, Contradiction)[..] else { panic!() };
    assert_eq!(places(twice), [["train line 2: joy|anger", "train line 4: joy", "train line 3: [\"anger\", \"joy\"]"]]);
    assert_eq!(places(of(&found, NoLabel)[0]), [["train line 7: "]]);
    let other: Vec<_> = of(&found, OtherLabel).into_iter().flat_map(places).collect();
    assert_eq!(other, [["train line 8: [1.5]"], ["test line 2: joy|sad"]]);
    assert_eq!(of(&found, MissingClass)[0].problem.as_deref(), Some("anger"));
    // A label that all rows have, and no label at all.
    let always = survey(&[part("train", &[("a", "x|y"), ("b", "x")])], &task(Outputs::Labels), 5);
    assert_eq!(always.findings.iter().map(|f| (f.kind, f.problem.as_deref())).collect::<Vec<_>>(), [(OneClass, Some("x"))]);
    let never = survey(&[part("train", &[("a", "[]"), ("b", "[]")])], &task(Outputs::Labels), 5);
    assert!(of(&never, NoClasses)[0].problem.as_deref().unwrap().contains("no text has a label"), "{never:?}");
}

#[test]
fn numbers_have_a_spread_and_are_compared_by_value() {
    let train = [("a", "1"), ("a", "1.0"), ("A", "2.5"), ("b", "high"), ("c", ""), ("d", "inf"), ("e", "-2")];
    let found = survey(&[part("train", &train), part("test", &[("f", "3"), ("g", "3.0")])], &task(Outputs::Numbers), 5);
    let spread = found.parts[0].numbers.unwrap();
    assert_eq!((spread.smallest, spread.median, spread.largest, found.parts[0].classes.len()), (-2.0, 1.0, 2.5, 0));
    assert_eq!(places(of(&found, NotANumber)[0]), [["train line 5: high"], ["train line 7: inf"]]);
    assert_eq!(places(of(&found, NoLabel)[0]), [["train line 6: "]]);
    assert_eq!(places(of(&found, Duplicate)[0]), [["train line 2: 1", "train line 3: 1.0"]]);
    assert_eq!(places(of(&found, Contradiction)[0]), [["train line 2: 1", "train line 4: 2.5", "train line 3: 1.0"]]);
    assert_eq!(found.findings.len(), 4, "{found:?}");
    let same = survey(&[part("train", &[("a", "1"), ("b", "1.0")])], &task(Outputs::Numbers), 5);
    assert_eq!(same.findings.iter().map(|f| (f.kind, f.problem.as_deref())).collect::<Vec<_>>(), [(OneClass, Some("1"))]);
    let none = survey(&[part("train", &[("a", "x"), ("b", "y")])], &task(Outputs::Numbers), 5);
    assert_eq!((none.parts[0].numbers, of(&none, NotANumber)[0].rows), (None, 2));
}
