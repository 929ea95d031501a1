package external

var encoderScripts = map[string]func(*child) error{}
