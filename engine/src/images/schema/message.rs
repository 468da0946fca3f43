//! A decoded message, whose fields are asked for by their names.

use super::MessageType;

/// A message that holds nothing but what the schema has.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::images) struct Message {
    pub(super) of: &'static MessageType,
    /// By place in the schema, in ascending order.
    pub(super) fields: Vec<(u16, Value)>,
}

/// What a field holds.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::images) enum Value {
    /// A number; one with a sign as its two's complement in 64 bits.
    Number(u64),
    /// Bytes, or text that is valid UTF-8.
    Bytes(Box<[u8]>),
    /// A message in this one.
    Message(Box<Message>),
}

impl Message {
    #[cfg(test)]
    /// One without any field, also those that are required.
    pub(in crate::images) fn new(of: &str) -> Self {
        Self { of: MessageType::named(of), fields: Vec::new() }
    }

    /// Which message of the schema it is.
    pub(in crate::images) fn kind(&self) -> &'static str {
        self.of.name
    }

    fn values<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a Value> + use<'a> {
        let place = self.of.field(name);
        let start = self.fields.partition_point(|(at, _)| usize::from(*at) < place);
        self.fields[start..]
            .iter()
            .take_while(move |(at, _)| usize::from(*at) == place)
            .map(|(_, value)| value)
    }

    /// Whether messages of this kind have such a field at all.
    pub(in crate::images) fn knows(&self, name: &str) -> bool {
        self.of.fields.iter().any(|field| field.name == name)
    }

    /// Whether a field is there.
    pub(in crate::images) fn has(&self, name: &str) -> bool {
        self.values(name).next().is_some()
    }

    /// A number, if it is there.
    pub(in crate::images) fn get(&self, name: &str) -> Option<u64> {
        self.numbers(name).next()
    }

    /// A number, or 0.
    pub(in crate::images) fn number(&self, name: &str) -> u64 {
        self.get(name).unwrap_or(0)
    }

    /// All numbers of a repeated field.
    pub(in crate::images) fn numbers<'a>(&'a self, name: &str) -> impl Iterator<Item = u64> + use<'a> {
        self.values(name).filter_map(|value| match value {
            Value::Number(number) => Some(*number),
            _ => None,
        })
    }

    /// Bytes, or none.
    pub(in crate::images) fn bytes(&self, name: &str) -> &[u8] {
        self.values(name)
            .find_map(|value| match value {
                Value::Bytes(bytes) => Some(&**bytes),
                _ => None,
            })
            .unwrap_or_default()
    }

    /// Text, or an empty one.
    pub(in crate::images) fn text(&self, name: &str) -> &str {
        std::str::from_utf8(self.bytes(name)).unwrap_or_default()
    }

    /// All texts of a repeated field.
    pub(in crate::images) fn texts<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a str> + use<'a> {
        self.values(name).filter_map(|value| match value {
            Value::Bytes(bytes) => std::str::from_utf8(bytes).ok(),
            _ => None,
        })
    }

    /// A message in this one.
    pub(in crate::images) fn one(&self, name: &str) -> Option<&Self> {
        self.list(name).next()
    }

    /// All messages of a repeated field.
    pub(in crate::images) fn list<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a Self> + use<'a> {
        self.values(name).filter_map(|value| match value {
            Value::Message(message) => Some(&**message),
            _ => None,
        })
    }

    /// The messages of a field, to be changed.
    pub(in crate::images) fn all_mut<'a>(
        &'a mut self,
        name: &str,
    ) -> impl Iterator<Item = &'a mut Self> + use<'a> {
        let place = self.of.field(name);
        self.fields.iter_mut().filter(move |(at, _)| usize::from(*at) == place).filter_map(|(_, value)| {
            match value {
                Value::Message(message) => Some(&mut **message),
                _ => None,
            }
        })
    }

    /// A message in this one, to be changed.
    pub(in crate::images) fn one_mut(&mut self, name: &str) -> Option<&mut Self> {
        self.all_mut(name).next()
    }

    /// Puts these values in place of what a field holds.
    pub(in crate::images) fn set(&mut self, name: &str, values: impl IntoIterator<Item = Value>) {
        let place = u16::try_from(self.of.field(name)).expect("messages have few fields");
        self.fields.retain(|(at, _)| *at != place);
        let start = self.fields.partition_point(|(at, _)| *at < place);
        self.fields.splice(start..start, values.into_iter().map(|value| (place, value)));
    }
}

impl From<Message> for Value {
    fn from(message: Message) -> Self {
        Self::Message(Box::new(message))
    }
}
