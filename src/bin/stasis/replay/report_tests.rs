use super::*;

#[test]
fn numbers_are_grouped() {
    let all: Vec<String> = [0, 12, 999, 1000, 123_456, 1_234_567].into_iter().map(grouped).collect();
    assert_eq!(all, ["0", "12", "999", "1,000", "123,456", "1,234,567"]);
}

#[test]
fn times_have_units() {
    let all: Vec<String> = [5, 1_500, 2_500_000, 3_000_000_000].into_iter().map(human).collect();
    assert_eq!(all, ["5 ns", "1.5 us", "2.5 ms", "3.00 s"]);
}
