//! All images of a dump, and where in them a rule looks.

use std::collections::BTreeMap;
use std::fmt;

use super::Refused;
use super::archive::Archive;
use crate::images::format::Image;
use crate::images::schema::Message;

/// Everything that has arrived.
#[derive(Debug, Default)]
pub(super) struct Set {
    /// Images that were understood, by kind and number.
    pub(super) images: BTreeMap<(&'static str, u64), Image>,
    /// What is in file systems in memory: name of the image, number of the device.
    pub(super) archives: Vec<(String, u64, Archive)>,
    /// Sizes of page images, in bytes, by their numbers.
    pub(super) pages: BTreeMap<u64, u64>,
}

impl Set {
    pub(super) fn all<'a>(&'a self, stem: &'static str) -> impl Iterator<Item = &'a Image> {
        self.images.range((stem, 0)..=(stem, u64::MAX)).map(|(_, image)| image)
    }

    pub(super) fn all_mut<'a>(&'a mut self, stem: &'static str) -> impl Iterator<Item = &'a mut Image> {
        self.images.range_mut((stem, 0)..=(stem, u64::MAX)).map(|(_, image)| image)
    }

    /// The one image of a kind, if there is one.
    pub(super) fn maybe(&self, stem: &'static str) -> Option<&Image> {
        self.all(stem).next()
    }

    pub(super) fn numbered(&self, stem: &'static str, number: u64) -> Option<&Image> {
        self.images.get(&(stem, number))
    }

    /// The one image of a kind that every dump has.
    pub(super) fn need(&self, stem: &'static str) -> Result<&Image, Refused> {
        let mut found = self.all(stem);
        match (found.next(), found.next()) {
            (Some(image), None) => Ok(image),
            (None, _) => Err(missing(format!("{stem}.img"))),
            (_, Some(second)) => Err(refused(&second.name, "there may be only one of its kind")),
        }
    }

    /// Every message of a kind, with its place.
    pub(super) fn entries<'a>(&'a self, stem: &'static str) -> impl Iterator<Item = (At<'a>, &'a Message)> {
        self.all(stem).flat_map(Image::messages)
    }
}

impl Image {
    pub(super) fn messages(&self) -> impl Iterator<Item = (At<'_>, &Message)> {
        let places = self.entries.iter().enumerate();
        places.map(|(index, entry)| (At { image: &self.name, index }, &entry.message))
    }

    /// The message of an image that has one.
    pub(super) fn only(&self) -> (At<'_>, &Message) {
        self.messages().next().expect("an image of this kind is read with its message or not at all")
    }
}

pub(super) fn refused(image: &str, rule: impl Into<String>) -> Refused {
    Refused { image: image.to_owned(), field: String::new(), rule: rule.into() }
}

pub(super) fn missing(image: String) -> Refused {
    Refused { image, field: String::new(), rule: "it is missing".to_owned() }
}

/// A message in an image.
#[derive(Debug, Clone, Copy)]
pub(super) struct At<'a> {
    pub(super) image: &'a str,
    index: usize,
}

impl At<'_> {
    /// The refusal of a field.
    pub(super) fn refuse(self, field: &str, rule: impl fmt::Display) -> Refused {
        let field = format!("{field} in entry {}", self.index + 1);
        Refused { image: self.image.to_owned(), field, rule: rule.to_string() }
    }

    /// Refuses a field unless the rule holds.
    pub(super) fn require(self, holds: bool, field: &str, rule: fmt::Arguments<'_>) -> Result<(), Refused> {
        if holds { Ok(()) } else { Err(self.refuse(field, rule)) }
    }

    /// Refuses a number that is above `most`.
    pub(super) fn at_most(self, message: &Message, field: &str, most: u64) -> Result<(), Refused> {
        let number = message.number(field);
        self.require(number <= most, field, format_args!("{number} is more than {most}"))
    }
}

/// An absolute path that does not climb.
pub(super) fn is_path(text: &str) -> bool {
    text.len() <= 4095 && text.starts_with('/') && !text.split('/').any(|part| part == "..")
}

/// A short text of plain characters.
pub(super) fn is_word(text: &str, most: usize) -> bool {
    text.len() <= most && text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'/')
}
