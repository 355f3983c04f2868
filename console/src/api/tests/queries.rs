//! Parameters of URLs.

use axum::http::{Method, StatusCode};
use serde_json::json;

use super::{Api, documents, first};
use crate::ops::Role;

#[tokio::test]
async fn parameters_of_a_list_all_count() {
    let api = Api::new(Role::Operator).await;
    api.apply(json!({ "objects": documents() })).await;
    for (query, total, items) in [
        ("", 4, 4),
        ("name=shop", 3, 3),
        ("name=shop&page=1", 3, 3),
        ("name=shop&search=shop&perPage=2", 3, 2),
        ("name=shop&kind=Route&search=shop&page=1&perPage=5", 1, 1),
        ("name=nope&page=1", 0, 0),
        ("perPage=3", 4, 3),
        ("perPage=3&page=2", 4, 1),
        ("search=&perPage=1", 4, 1),
    ] {
        let (status, answer) = api.call(Method::GET, &format!("/api/v1/objects?{query}"), None).await;
        let found = (answer["total"].as_u64(), answer["items"].as_array().map(Vec::len));
        assert_eq!((status, found), (StatusCode::OK, (Some(total), Some(items))), "{query}: {answer}");
    }
}

#[tokio::test]
async fn a_query_that_cannot_be_read_is_400_at_its_parameter() {
    let api = Api::new(Role::Operator).await;
    for (method, path, query, field) in [
        (Method::GET, "objects", "knd=Route", "knd"),
        (Method::GET, "objects", "kind=Rute", "kind"),
        (Method::GET, "objects", "page=-1", "page"),
        (Method::GET, "objects", "perPage=1001", "perPage"),
        (Method::DELETE, "routes/shop", "confirm=yes", "confirm"),
        (Method::GET, "revisions", "page=x", "page"),
        (Method::GET, "sources", "sort=foo", "sort"),
        (Method::GET, "flows", "zz=1", "zz"),
        (Method::GET, "flows", "port=x", "port"),
        (Method::GET, "flows", "seconds=601", "seconds"),
        (Method::GET, "flows", "verdict=dropped", "verdict"),
    ] {
        let (status, answer) = api.call(method, &format!("/api/v1/{path}?{query}"), None).await;
        assert_eq!((status, first(&answer).0), (StatusCode::BAD_REQUEST, field), "{path}?{query}: {answer}");
    }
}
