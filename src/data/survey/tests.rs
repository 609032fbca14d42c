use super::super::rows::Row;
use super::*;
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
