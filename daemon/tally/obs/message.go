package obs

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
)

// The operations of the protocol.
const (
	opHello      = 0
	opIdentify   = 1
	opIdentified = 2
	opEvent      = 5
	opRequest    = 6
	opResponse   = 7
)

// rpcVersion is the one of obs-websocket 5, which OBS has since release 28.
const rpcVersion = 1

// The events to be told of: those that change what is on program or preview,
// and the end of OBS.
const (
	wantGeneral     = 1 << 0
	wantConfig      = 1 << 1 // scene collections
	wantScenes      = 1 << 2
	wantInputs      = 1 << 3
	wantTransitions = 1 << 4
	wantSceneItems  = 1 << 7
	wantUI          = 1 << 10 // studio mode
	wantInputActive = 1 << 17
	wantInputShow   = 1 << 18

	wanted = wantGeneral | wantConfig | wantScenes | wantInputs | wantTransitions | wantSceneItems | wantUI | wantInputActive | wantInputShow
)

// The reasons of OBS for closing a connection.
const (
	closedPassword = 4009
	closedVersion  = 4010
	closedKicked   = 4011
)

// The results of requests that say that there is no such thing.
const (
	resultNotFound  = 600
	resultWrongType = 602
)

// message is the frame of all of them.
type message struct {
	Op   int             `json:"op"`
	Data json.RawMessage `json:"d"`
}

type hello struct {
	RPCVersion     int `json:"rpcVersion"`
	Authentication *struct {
		Challenge string `json:"challenge"`
		Salt      string `json:"salt"`
	} `json:"authentication"`
}

type identify struct {
	RPCVersion     int    `json:"rpcVersion"`
	Authentication string `json:"authentication,omitempty"`
	Events         int    `json:"eventSubscriptions"`
}

type event struct {
	Type string `json:"eventType"`
	Data struct {
		SceneName    *string `json:"sceneName"`
		InputName    string  `json:"inputName"`
		VideoActive  *bool   `json:"videoActive"`
		StudioModeOn *bool   `json:"studioModeEnabled"`
	} `json:"eventData"`
}

type request struct {
	Type string `json:"requestType"`
	ID   string `json:"requestId"`
	Data any    `json:"requestData,omitempty"`
}

type response struct {
	ID     string `json:"requestId"`
	Status struct {
		OK      bool   `json:"result"`
		Code    int    `json:"code"`
		Comment string `json:"comment"`
	} `json:"requestStatus"`
	Data json.RawMessage `json:"responseData"`
}

// frame puts v into the frame.
func frame(op int, v any) ([]byte, error) {
	data, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	return json.Marshal(message{Op: op, Data: data})
}

// answer proves that we know the password, without sending it.
func answer(password, salt, challenge string) string {
	return digest(digest(password+salt) + challenge)
}

func digest(s string) string {
	sum := sha256.Sum256([]byte(s))
	return base64.StdEncoding.EncodeToString(sum[:])
}
