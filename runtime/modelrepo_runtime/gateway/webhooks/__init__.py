"""Tell the receivers that jobs name of what becomes of them, as Standard Webhooks 1.0.0 has it.

`signing` makes what is posted, `sending` posts it once, `delivery` is the loop that any number of gateways run.
"""

from __future__ import annotations

from modelrepo_runtime.gateway.webhooks.delivery import DeliveryLoop
from modelrepo_runtime.gateway.webhooks.sending import Sender, Sent

__all__ = ["DeliveryLoop", "Sender", "Sent"]
