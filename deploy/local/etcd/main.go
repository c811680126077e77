// Command etcd is the etcd server, built from the pinned module: the outer main of etcd's own
// repository lives in a module that the proxy does not serve as a command.
package main

import (
	"os"

	"go.etcd.io/etcd/server/v3/etcdmain"
)

func main() {
	etcdmain.Main(os.Args)
}
