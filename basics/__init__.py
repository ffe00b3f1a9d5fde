"""What every command of this project does alike: errors for people, whole files."""
