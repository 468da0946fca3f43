//! The document and the code say the same.

use std::collections::BTreeSet;

use super::*;
use crate::view;

fn document() -> serde_json::Value {
    serde_json::from_str(OPENAPI).unwrap()
}

/// Stands in for a site; nothing of it is called.
fn documented() -> BTreeSet<(String, String)> {
    let document = document();
    let paths = document["paths"].as_object().unwrap();
    paths
        .iter()
        .flat_map(|(path, methods)| {
            methods.as_object().unwrap().keys().map(move |method| (method.to_uppercase(), path.clone()))
        })
        .collect()
}

#[test]
fn every_route_is_documented_and_every_documented_one_exists() {
    let routes: BTreeSet<_> = routes::<crate::tests::Fake>()
        .into_iter()
        .map(|(method, path, _, _)| (method.to_owned(), path.to_owned()))
        .collect();
    assert_eq!(documented(), routes);
}

#[test]
fn every_route_says_which_role_it_needs() {
    let document = document();
    for (method, path, role) in table::<crate::tests::Fake>() {
        let said = &document["paths"][path][method.to_lowercase()]["x-role"];
        assert_eq!(said.as_str(), Some(role.as_str()), "{method} {path}");
    }
}

#[test]
fn every_reference_in_the_document_leads_somewhere() {
    let document = document();
    let mut stack = vec![&document];
    let mut seen = 0;
    while let Some(value) = stack.pop() {
        match value {
            serde_json::Value::Object(members) => {
                if let Some(reference) = members.get("$ref") {
                    let pointer = reference.as_str().unwrap().trim_start_matches('#');
                    assert!(document.pointer(pointer).is_some(), "{reference} leads nowhere");
                    seen += 1;
                }
                stack.extend(members.values());
            }
            serde_json::Value::Array(items) => stack.extend(items),
            _ => {}
        }
    }
    assert!(seen > 50);
}

#[test]
fn all_codes_phases_and_outcomes_are_in_the_document() {
    let document = document();
    let words = |pointer: &str| -> BTreeSet<String> {
        let list = document.pointer(pointer).unwrap().as_array().unwrap();
        list.iter().map(|word| word.as_str().unwrap().to_owned()).collect()
    };
    let codes: BTreeSet<_> = ErrorCode::ALL.iter().map(ToString::to_string).collect();
    assert_eq!(words("/components/schemas/WireError/properties/code/enum"), codes);
    let phases: BTreeSet<_> = ums_model::phase::Phase::ALL.iter().map(ToString::to_string).collect();
    assert_eq!(words("/components/schemas/Phase/enum"), phases);
    let outcomes: BTreeSet<_> = ums_model::phase::Outcome::ALL.iter().map(ToString::to_string).collect();
    assert_eq!(words("/components/schemas/Outcome/enum"), outcomes);
}

/// The fields of a request as the code knows them are those of the document.
#[test]
fn requests_have_the_documented_fields() {
    let document = document();
    let fields = |name: &str| -> BTreeSet<String> {
        let schema = &document["components"]["schemas"][name];
        assert_eq!(schema["additionalProperties"], false, "{name}");
        schema["properties"].as_object().unwrap().keys().cloned().collect()
    };
    let of = |value: serde_json::Value| -> BTreeSet<String> {
        value.as_object().unwrap().keys().cloned().collect()
    };
    let service = view::CreateService::new(
        "web".parse().unwrap(),
        ums_sites::adapter::ImageRequest::Image("redis".to_owned()),
    );
    assert_eq!(fields("CreateService"), of(serde_json::to_value(service).unwrap()));
    let start =
        view::StartMigration { service: "web".parse().unwrap(), to: "b".parse().unwrap(), mode: None };
    assert_eq!(fields("StartMigration"), of(serde_json::to_value(start).unwrap()));
    assert_eq!(fields("StopService"), of(serde_json::to_value(view::StopService::default()).unwrap()));
    let token = view::CreateToken { name: "ci".to_owned(), role: None, expires_in_s: None };
    assert_eq!(fields("CreateToken"), of(serde_json::to_value(token).unwrap()));
}
