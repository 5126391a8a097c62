"""Run folders: train one and write what was measured, how, and on what."""
