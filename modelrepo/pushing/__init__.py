"""From a model's folder to a published version: what is packed, cut, hashed, sent and tried."""
