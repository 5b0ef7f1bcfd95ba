//! A member of a list, with the way to what a delivery touches of it.
#![allow(unsafe_code)]

use std::ptr::NonNull;

use super::Identified;
use crate::message::{Filter, Message};
use crate::sync::Arc;

/// A member and what it accepts (`None`: everything).
pub(crate) struct Entry<M: Identified> {
    member: Arc<M>,
    /// Of that member: a delivery reads none of the rest.
    post: NonNull<M::Post>,
    pub(crate) filter: Option<Arc<Filter>>,
}

// SAFETY: an `Arc` of the member and a reference into it.
unsafe impl<M: Identified + Send + Sync> Send for Entry<M> where M::Post: Sync {}
// SAFETY: as above.
unsafe impl<M: Identified + Send + Sync> Sync for Entry<M> where M::Post: Sync {}

impl<M: Identified> Entry<M> {
    pub(crate) fn new(member: Arc<M>, filter: Option<Arc<Filter>>) -> Self {
        Self { post: NonNull::from(member.post()), member, filter }
    }

    #[inline(always)]
    pub(crate) fn member(&self) -> &Arc<M> {
        &self.member
    }

    /// Id of the member.
    #[inline]
    pub(super) fn id(&self) -> u64 {
        M::id_of(self.post())
    }

    #[inline(always)]
    pub(crate) fn post(&self) -> &M::Post {
        // SAFETY: borrowed from the member, which lives at its place, shared only, as long as we have its `Arc`.
        unsafe { self.post.as_ref() }
    }

    #[inline]
    pub(crate) fn accepts(&self, message: &Message) -> bool {
        self.filter.as_ref().is_none_or(|filter| filter.accepts(message))
    }
}

impl<M: Identified> Clone for Entry<M> {
    fn clone(&self) -> Self {
        Self { member: Arc::clone(&self.member), post: self.post, filter: self.filter.clone() }
    }
}
