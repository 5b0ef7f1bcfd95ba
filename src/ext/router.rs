//! Routers: one subscription, routes by message type.
