"""Find out what this box can reach, how fast, and with whose credentials."""

from modelrepo.diagnosis.box import diagnose_box
from modelrepo.diagnosis.finding import Diagnosis, Finding, Standing
from modelrepo.diagnosis.store import diagnose_store

__all__ = ["Diagnosis", "Finding", "Standing", "diagnose_box", "diagnose_store"]
