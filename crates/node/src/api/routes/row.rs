//! What the rows of the table of routes are made of.

use crate::api::{Access, Handle, Param, Place, Route, Verb, proxy};

/// A part of the path.
pub(super) const fn path(name: &'static str) -> Param {
    Param {
        name,
        place: Place::Path,
    }
}

/// A parameter of the query.
pub(super) const fn query(name: &'static str) -> Param {
    Param {
        name,
        place: Place::Query,
    }
}

/// A field of a posted form.
pub(super) const fn form(name: &'static str) -> Param {
    Param {
        name,
        place: Place::Form,
    }
}

/// A row for readers where the method only looks, else for admins.
pub(super) const fn route(
    method: Verb,
    path: &'static str,
    params: &'static [Param],
    handle: Handle,
    summary: &'static str,
) -> Route {
    Route {
        method,
        path,
        summary,
        params,
        access: Access::Usual,
        handle,
    }
}

/// A row for everybody.
pub(super) const fn open(path: &'static str, handle: Handle, summary: &'static str) -> Route {
    Route {
        access: Access::Open,
        ..route(Verb::Get, path, &[], handle, summary)
    }
}

/// A row for admins only, whatever the method.
pub(super) const fn admin(
    method: Verb,
    path: &'static str,
    params: &'static [Param],
    handle: Handle,
    summary: &'static str,
) -> Route {
    Route {
        access: Access::Admin,
        ..route(method, path, params, handle, summary)
    }
}

/// The body.
pub(super) const fn body() -> Param {
    Param {
        name: "body",
        place: Place::Body,
    }
}

/// The row of a method of the proxy, which has a permission of its own.
pub(super) const fn proxied(method: Verb, path: &'static str, params: &'static [Param]) -> Route {
    let handle = Handle::Flow(|node, call| Box::pin(proxy::pass(node, call)));
    let summary = "Passes the request on to a system's service.";
    Route {
        access: Access::Proxy,
        ..route(method, path, params, handle, summary)
    }
}
