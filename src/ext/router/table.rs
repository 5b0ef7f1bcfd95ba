//! The routes of one moment: which callback gets which message.
//!
//! A table never changes; a change makes a new one. The callbacks themselves are shared between tables and
//! are run by the router's subscription only: its token opens them.

use crate::bus::Received;
use crate::contain::quietly;
use crate::exec::serial::{Serial, Token, TokenId};
use crate::ext::cache::CacheUpdate;
use crate::message::{AnyMessageType, Filter, FilterMode, Formatters, Message, TypeId};
use crate::sync::Arc;

type Callback = Box<dyn FnMut(&Received<'_>) + Send>;

/// A callback that is dropped quietly.
struct Guarded(Option<Callback>);

impl Drop for Guarded {
    fn drop(&mut self) {
        let callback = self.0.take();
        quietly(|| drop(callback));
    }
}

/// A callback and the type it is for.
pub(super) struct Route {
    /// None: the default route. Keeps the type's number from being given to another type.
    kind: Option<AnyMessageType>,
    callback: Serial<Guarded>,
}

impl Route {
    pub(super) fn new(
        runner: TokenId,
        kind: Option<&AnyMessageType>,
        callback: impl FnMut(&Received<'_>) + Send + 'static,
    ) -> Arc<Self> {
        let callback = Serial::new(runner, Guarded(Some(Box::new(callback))));
        Arc::new(Self { kind: kind.cloned(), callback })
    }

    /// Runs the callback. Not from inside itself.
    pub(super) fn call(&self, token: &Token, received: &Received<'_>) {
        let Some(mut entered) = self.callback.enter(token) else {
            debug_assert!(false, "entered twice");
            return;
        };
        if let Some(callback) = &mut entered.0 {
            callback(received);
        }
    }
}

/// Routes by type number, sorted.
#[derive(Clone, Default)]
pub(super) struct ByType(Vec<(u32, Arc<Route>)>);

impl ByType {
    fn place(&self, id: TypeId) -> Result<usize, usize> {
        self.0.binary_search_by_key(&id.get(), |(number, _)| *number)
    }

    fn get(&self, id: TypeId) -> Option<&Arc<Route>> {
        self.place(id).ok().map(|at| &self.0[at].1)
    }

    /// False if there is a route for this type already.
    pub(super) fn insert(&mut self, id: TypeId, route: &Arc<Route>) -> bool {
        let place = self.place(id);
        if let Err(at) = place {
            self.0.insert(at, (id.get(), Arc::clone(route)));
        }
        place.is_err()
    }

    pub(super) fn remove(&mut self, id: TypeId) -> Option<Arc<Route>> {
        self.place(id).ok().map(|at| self.0.remove(at).1)
    }
}

/// See the module.
#[derive(Clone, Default)]
pub(super) struct Table {
    pub(super) types: ByType,
    /// By the type inside a cache update.
    pub(super) updates: ByType,
    pub(super) default: Option<Arc<Route>>,
    /// What the default route is limited to; none: no limit.
    pub(super) formatters: Formatters,
}

impl Table {
    /// Where a message goes.
    pub(super) fn find(&self, message: &Message, is_final: bool) -> Option<&Arc<Route>> {
        if !self.updates.0.is_empty()
            && let Some(route) = message.payload::<CacheUpdate>().and_then(|update| self.updates.get(update.kind()))
        {
            return Some(route);
        }
        self.types.get(message.type_id()).or_else(|| {
            let open = is_final || self.formatters.is_empty() || self.formatters.intersects(message.formatters());
            self.default.as_ref().filter(|_| open)
        })
    }

    /// The filter that lets through what has a route, and nothing else.
    pub(super) fn filter(&self) -> Filter {
        let mut filter = Filter::default();
        if self.default.is_some() && self.formatters.is_empty() {
            return filter;
        }
        filter.set_mode(FilterMode::Selective);
        self.types.0.iter().filter_map(|(_, route)| route.kind.as_ref()).for_each(|kind| filter.accept(kind));
        if !self.updates.0.is_empty() {
            filter.accept(CacheUpdate::message_type());
        }
        if self.default.is_some() {
            filter.formatters = self.formatters;
        }
        filter
    }
}
