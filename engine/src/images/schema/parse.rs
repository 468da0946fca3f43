//! Reads the schema: the few words of protobuf's language that it uses.

use super::{Field, Kind, Label, MessageType};

/// All messages of some texts. The error names the line that is no part of the language.
pub(super) fn parse(texts: &[&'static str]) -> Result<Vec<MessageType>, &'static str> {
    let lines = || texts.iter().flat_map(|text| text.lines()).map(str::trim);
    let names: Vec<&str> =
        lines().filter_map(|line| line.strip_prefix("message ")?.strip_suffix(" {")).collect();
    let mut messages = Vec::with_capacity(names.len());
    let mut open: Option<MessageType> = None;
    for line in lines() {
        let closed = match (line, &mut open) {
            ("}", open) => open.take(),
            (line, None) if line.is_empty() || line.starts_with("//") => None,
            (line, None) => {
                let name = line.strip_prefix("message ").and_then(|rest| rest.strip_suffix(" {"));
                open = Some(MessageType { name: name.ok_or(line)?, fields: Vec::new() });
                None
            }
            (line, Some(message)) => {
                message.fields.push(field(line, &names).ok_or(line)?);
                None
            }
        };
        messages.extend(closed);
    }
    for message in &mut messages {
        message.fields.sort_by_key(|field| field.number);
    }
    Ok(messages)
}

/// `LABEL KIND NAME = NUMBER;`
fn field(line: &'static str, messages: &[&str]) -> Option<Field> {
    let mut words = line.strip_suffix(';')?.split(' ');
    let label = match words.next()? {
        "required" => Label::Required,
        "optional" => Label::Optional,
        "repeated" => Label::Repeated,
        _ => return None,
    };
    let kind = match words.next()? {
        "bool" => Kind::Bool,
        "uint32" | "enum" => Kind::Unsigned32,
        "int32" => Kind::Signed32,
        "sint32" => Kind::ZigZag32,
        "uint64" | "int64" => Kind::Bits64,
        "sint64" => Kind::ZigZag64,
        "fixed64" => Kind::Fixed64,
        "string" => Kind::Text,
        "bytes" => Kind::Bytes,
        message => Kind::Message(messages.iter().position(|name| *name == message)?),
    };
    let name = words.next()?;
    words.next().filter(|word| *word == "=")?;
    let number = words.next()?.parse().ok().filter(|number| *number > 0)?;
    words.next().is_none().then_some(Field { number, name, label, kind })
}
