//! PURE: an entry of the events stream as the events it tells of.

use super::Event;
use crate::config::MAX_NAME_BYTES;
use crate::store::feed::RawEvent;
use crate::store::packing::MOST_PACKED;

/// The events of an entry: one, where its fields do not hold as many as it says.
pub(crate) fn unpack((id, mut fields): RawEvent) -> Vec<Event> {
    let several = fields.pop_if(|(field, _)| field == "k").and_then(|(_, k)| k.parse().ok());
    let Some(count @ 2..=MOST_PACKED) = several else { return vec![event(id, fields)] };
    let columns: Vec<Column> = fields.iter().map(Column::read).collect();
    // What all events share is repeated for each: it must be short.
    let holds_all = |column: &Column| {
        column.name.len() <= MAX_NAME_BYTES
            && match column.name {
                "e" => column.lines[0].len() <= MAX_NAME_BYTES,
                _ => column.lines.len() == count,
            }
    };
    let is_packed = columns.iter().any(|column| column.name != "e");
    if !is_packed || !columns.iter().all(holds_all) {
        return vec![event(id, fields)];
    }
    let place = |n| if n + 1 == count { id.clone() } else { format!("{id}:{}", n + 1) };
    let nth = |n| event(place(n), columns.iter().map(|column| column.field(n)).collect());
    (0..count).map(nth).collect()
}

/// A field that holds a value of each event, a line each.
struct Column<'a> {
    name: &'a str,
    /// Never empty.
    lines: Vec<&'a str>,
}

impl<'a> Column<'a> {
    fn read((name, values): &'a (String, String)) -> Self {
        Self { name, lines: values.split('\n').collect() }
    }

    fn field(&self, n: usize) -> (String, String) {
        let value = if self.name == "e" { self.lines[0] } else { self.lines[n] };
        (self.name.to_owned(), value.to_owned())
    }
}

fn event(id: String, fields: Vec<(String, String)>) -> Event {
    let mut event = Event {
        id,
        name: String::new(),
        job_id: String::new(),
        job_name: String::new(),
        fields: Vec::with_capacity(fields.len()),
    };
    for (field, value) in fields {
        match field.as_str() {
            "e" => event.name = value,
            "id" => event.job_id = value,
            "n" => event.job_name = value,
            _ => event.fields.push((field, value)),
        }
    }
    event
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn entry(fields: &[(&str, &str)]) -> RawEvent {
        let owned = |(field, value): &(&str, &str)| ((*field).to_owned(), (*value).to_owned());
        ("5-1".to_owned(), fields.iter().map(owned).collect())
    }

    #[test]
    fn each_event_gets_its_line_and_its_place() {
        let events =
            unpack(entry(&[("e", "completed"), ("id", "a\nb"), ("x", "1\n2"), ("k", "2")]));
        let told: Vec<_> =
            events.iter().map(|e| (&*e.id, &*e.name, &*e.job_id, &*e.fields[0].1)).collect();
        assert_eq!(told, [("5-1:1", "completed", "a", "1"), ("5-1", "completed", "b", "2")]);
    }

    #[test]
    fn a_number_of_events_that_are_not_there_is_not_believed() {
        for fields in [
            &[("e", "completed"), ("k", "4000000000")][..],
            &[("e", "completed"), ("k", "200")],
            &[("e", "completed"), ("e", "completed"), ("k", "200")],
            &[("e", "completed"), ("id", "a\nb"), ("k", "3")],
            &[("k", "200")],
        ] {
            assert_eq!(unpack(entry(fields)).len(), 1, "{fields:?}");
        }
        let long = "x".repeat(1 << 20);
        let lines = "\n".repeat(200);
        let fields = [("e", long.as_str()), ("id", &lines), ("k", "201")];
        assert_eq!(unpack(entry(&fields)).len(), 1, "nothing long is repeated");
    }

    proptest! {
        #[test]
        fn whatever_an_entry_holds_its_events_are_bounded_by_its_bytes(
            fields in proptest::collection::vec(("[enidk]{1,2}", "[a-z0-9\n]{0,20}"), 0..6),
            k in proptest::option::of(prop_oneof![any::<u64>(), 2u64..12]),
        ) {
            let mut raw = fields;
            raw.extend(k.map(|k| ("k".to_owned(), k.to_string())));
            let lines = raw.iter().map(|(_, value)| value.split('\n').count()).max().unwrap_or(1);
            let events = unpack(("1-1".to_owned(), raw));
            prop_assert!((1..=lines.max(1)).contains(&events.len()));
            prop_assert_eq!(&events.last().unwrap().id, "1-1");
        }
    }
}
