//! The part of RFC 3986 that following a redirect needs.

/// Scheme, host and port. The token is sent to one origin only.
pub fn origin(url: &str) -> &str {
    let host = url.find("://").map_or(0, |at| at + 3);
    let end = url[host..].find(['/', '?', '#']).map_or(url.len(), |at| host + at);
    &url[..end]
}

/// Whether both URLs have the same origin.
pub fn same_origin(a: &str, b: &str) -> bool {
    origin(a).eq_ignore_ascii_case(origin(b))
}

/// Whether the server is this machine. A proxy could not reach it.
pub fn is_loopback(url: &str) -> bool {
    let (_, host) = origin(url).split_once("://").unwrap_or_default();
    let host = if host.starts_with('[') { host.split_inclusive(']').next() } else { host.split(':').next() };
    matches!(host, Some("localhost" | "127.0.0.1" | "[::1]"))
}

/// Whether curl may get this URL: scheme http or https, and only printable characters without spaces.
pub fn is_http(url: &str) -> bool {
    (has_scheme(url, "http://") || has_scheme(url, "https://")) && url.bytes().all(|b| b.is_ascii_graphic())
}

/// Target of a redirect from `base` to `location`; `None` if it would leave TLS.
pub fn follow(base: &str, location: &str) -> Option<String> {
    let scheme = base.split_once("//")?.0;
    let next = if has_scheme(location, "http://") || has_scheme(location, "https://") {
        location.to_string()
    } else if location.starts_with("//") {
        format!("{scheme}{location}")
    } else if location.starts_with('/') {
        format!("{}{location}", origin(base))
    } else {
        let path = base.split(['?', '#']).next()?;
        let folder = path.get(origin(base).len()..)?.rfind('/').map_or("/", |at| &path[origin(base).len()..=origin(base).len() + at]);
        format!("{}{folder}{location}", origin(base))
    };
    let keeps_tls = !has_scheme(base, "https://") || has_scheme(&next, "https://");
    (keeps_tls && is_http(&next)).then_some(next)
}

/// `url` for a message: without passwords, and without the query, which may hold a CDN's signature.
pub fn shown(url: &str) -> String {
    let plain = url.split(['?', '#']).next().unwrap_or_default();
    let (scheme, rest) = plain.split_once("://").unwrap_or(("", plain));
    let host = rest.find('/').unwrap_or(rest.len());
    let user = rest[..host].rfind('@').map_or(0, |at| at + 1);
    format!("{scheme}://{}", &rest[user..])
}

fn has_scheme(url: &str, scheme: &str) -> bool {
    url.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirects_lead_where_the_rfc_says() {
        let base = "https://hub.co/a/b?x=/y";
        for (location, want) in [
            ("/c/d?q", "https://hub.co/c/d?q"),
            ("c", "https://hub.co/a/c"),
            ("//cdn.co/c", "https://cdn.co/c"),
            ("HTTPS://cdn.co:1/c", "HTTPS://cdn.co:1/c"),
            ("file:///etc/passwd", "https://hub.co/a/file:///etc/passwd"),
        ] {
            assert_eq!(follow(base, location).as_deref(), Some(want), "{location}");
        }
        assert_eq!(follow("https://hub.co", "c").as_deref(), Some("https://hub.co/c"));
        assert_eq!(follow("http://hub.co/a", "http://cdn.co/c").as_deref(), Some("http://cdn.co/c"));
        for refused in ["http://hub.co/a/b", "/a\nheader = \"x\"", "/a b"] {
            assert_eq!(follow(base, refused), None, "{refused}");
        }
    }

    #[test]
    fn another_port_scheme_or_host_is_another_server() {
        assert!(same_origin("https://hub.co/a", "https://HUB.co?b"));
        for other in ["http://hub.co/a", "https://hub.co:8443/a", "https://hub.co.evil/a", "https://hub.co@evil/a", "https://evil/hub.co"] {
            assert!(!same_origin("https://hub.co", other), "{other}");
        }
        assert!(is_loopback("http://[::1]:80/a") && is_loopback("http://localhost/") && is_loopback("http://127.0.0.1:9"));
        assert!(!is_loopback("http://localhost.co/") && !is_loopback("http://127.0.0.11"));
    }

    #[test]
    fn messages_hide_what_is_secret() {
        assert_eq!(shown("https://me:secret@mirror.co/a/b?signature=secret"), "https://mirror.co/a/b");
        assert_eq!(shown("https://mirror.co/a@b"), "https://mirror.co/a@b");
    }
}
