"""Which version is live: `active.yaml`, its history, and the changes to them."""

from modelrepo.promotion.active_file import ActiveFile, Rollout
from modelrepo.promotion.changes import Promotions, VersionIndex
from modelrepo.promotion.history import HistoryEntry, Kind
from modelrepo.promotion.state import ActiveState

__all__ = ["ActiveFile", "ActiveState", "HistoryEntry", "Kind", "Promotions", "Rollout", "VersionIndex"]
