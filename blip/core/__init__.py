"""The paper: formulas, Fisher information, frozen bits. Imports nothing else of this package."""
