//! One macro for the many enums that are, on the wire and on the screen, exactly one kebab-case word per variant.

/// Declares an enum whose variants are words: `Display`, `FromStr`, serde and `ALL` come from one table, so that the
/// CLI, the API and the journal can never spell a variant differently.
///
/// `else Variant` at the end names the variant that an unknown word becomes when it is *deserialized* (a newer site
/// may know more words); without it an unknown word is an error. `FromStr` is always strict.
macro_rules! words {
    (
        $(#[$meta:meta])*
        pub enum $name:ident ($what:literal) {
            $( $(#[$vmeta:meta])* $variant:ident = $word:literal, )+
        }
        $(else $fallback:ident)?
    ) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum $name {
            $( $(#[$vmeta])* $variant, )+
        }

        impl $name {
            /// Every variant, in order.
            pub const ALL: &'static [Self] = &[ $(Self::$variant,)+ ];

            /// The word as users, the API and the journal spell it.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word,)+ }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(self.as_str())
            }
        }

        impl std::str::FromStr for $name {
            type Err = $crate::names::InvalidName;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                match text {
                    $($word => Ok(Self::$variant),)+
                    _ => Err($crate::names::InvalidName::new($what, text, concat!("one of", $(" ", $word,)+))),
                }
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.as_str())
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
                let parsed = text.parse::<Self>();
                $( let parsed = parsed.or(Ok::<_, $crate::names::InvalidName>(Self::$fallback)); )?
                parsed.map_err(serde::de::Error::custom)
            }
        }
    };
}
