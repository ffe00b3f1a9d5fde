"""What every command of this project does alike: errors for people, files that are never half-written."""
